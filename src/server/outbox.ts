/**
 * The frames about jobs on their way to one peer, in order.
 *
 * A compiler prints faster than a slow link carries. What waits is bounded: lines of output are dropped beyond it,
 * with one notice that says how many, and states never are: they are few, for each answers something of the peer's, and
 * one that asks and does not read is cut off (session.ts). Little is handed to the socket at a time, so that a
 * pong, which does not pass here, never waits behind a backlog and the peer is not taken for dead.
 */
import { realpath } from 'node:fs/promises';

import type { QueueStatus } from '../jobs/local-work.js';
import type { JobRecord } from '../jobs/record.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import { lowWaterBytes, type ReceiverChannel } from '../protocol/channel.js';
import type { FrameOf } from '../protocol/frames.js';

/** Bytes of output that may wait; once over it, lines are dropped until half of it is free. */
const maxWaitingBytes = 1_048_576;
/** What a frame costs beside its line. */
const frameBytes = 128;

type JobFrame = FrameOf<'job_state_changed'> | FrameOf<'job_output'> | FrameOf<'queue_status'>;

export interface Outbox {
  state(frame: FrameOf<'job_state_changed'>): void;
  /** One line of a job's output with its terminator. */
  output(jobId: string, line: string): void;
  /** Of several that wait only the latest is sent. */
  queueStatus(frame: FrameOf<'queue_status'>): void;
  /** Drops what waits. */
  end(): void;
}

export function createOutbox(channel: ReceiverChannel): Outbox {
  const dropped = new Map<string, number>();
  let waiting: { frame: JobFrame; readonly bytes: number }[] = [];
  let waitingBytes = 0;
  let pumping = false;

  async function pump(): Promise<void> {
    pumping = true;
    while (waiting.length > 0) {
      await channel.drained(lowWaterBytes);
      while (waiting.length > 0 && channel.bufferedBytes <= lowWaterBytes) {
        const { frame, bytes } = waiting.shift() as (typeof waiting)[number];
        waitingBytes -= bytes;
        channel.send(frame);
        if (waiting.length === 0) for (const jobId of dropped.keys()) giveNotice(jobId);
      }
      if (channel.signal.aborted) end();
    }
    pumping = false;
  }

  function put(frame: JobFrame, bytes: number): void {
    if (!pumping && channel.bufferedBytes <= lowWaterBytes) {
      channel.send(frame);
      return;
    }
    waiting.push({ frame, bytes });
    waitingBytes += bytes;
    if (!pumping) void pump();
  }

  function putLine(jobId: string, line: string): void {
    put({ type: 'job_output', job_id: jobId, stream: 'stdout', line }, line.length + frameBytes);
  }

  function giveNotice(jobId: string): void {
    const lines = dropped.get(jobId);
    if (lines === undefined) return;
    dropped.delete(jobId);
    const missing = lines === 1 ? '1 line is' : `${lines} lines are`;
    putLine(jobId, `[${missing} missing here: the connection was slower than the build]\n`);
  }

  function end(): void {
    waiting = [];
    waitingBytes = 0;
    dropped.clear();
  }

  return {
    state(frame) {
      giveNotice(frame.job_id);
      put(frame, frameBytes);
    },
    output(jobId, line) {
      const limit = dropped.size > 0 ? maxWaitingBytes / 2 : maxWaitingBytes;
      if (waitingBytes + line.length > limit) {
        dropped.set(jobId, (dropped.get(jobId) ?? 0) + 1);
        return;
      }
      giveNotice(jobId);
      for (const piece of outputPieces(line)) putLine(jobId, piece);
    },
    queueStatus(frame) {
      const stale = waiting.find((item) => item.frame.type === 'queue_status');
      if (stale) stale.frame = frame;
      else put(frame, frameBytes);
    },
    end,
  };
}

/**
 * Takes the places of this machine out of what a compiler prints before a peer sees it. ESPHome names its
 * directories in every log; they tell a stranger the account, the layout and the ids of other peers. The job's own
 * log keeps them.
 */

/** The line as the peer of that job may see it. */
export type PathStripper = (line: string, key: RemoteKey) => string;

/** Names in the device's own directory become relative to it; what lies below one of `places` begins with `…`. */
export function createPathStripper(
  layout: Pick<Layout, 'subtree' | 'buildsDir'>,
  places: readonly string[],
): PathStripper {
  const longestFirst = places.filter((place) => place.length > 1).toSorted((a, b) => b.length - a.length);
  return function hidePlaces(line, key) {
    if (!line.includes('/')) return line;
    let shown = line.includes(layout.buildsDir) ? line.replaceAll(`${layout.subtree(key)}/`, '') : line;
    for (const place of longestFirst) shown = shown.replaceAll(place, '…');
    return shown;
  };
}

/** The places, and where their links lead: a compiler prints either. Each must exist. */
export async function withRealPaths(places: readonly string[]): Promise<string[]> {
  return [...places, ...(await Promise.all(places.map((place) => realpath(place))))];
}

/** A job's state in the words of the wire (Device Builder 1.26). */

/** The frame for the present state; undefined while the bundle is still being unpacked, for which there is none. */
export function stateFrame(job: JobRecord): FrameOf<'job_state_changed'> | undefined {
  if (job.state === 'receiving') return undefined;
  return {
    type: 'job_state_changed',
    job_id: job.peerJobId,
    status: job.state,
    error_message: job.errorMessage,
    // The only reason that clients know: they then build by themselves.
    ...(job.failureReason === 'provision' && { failure_reason: 'provision' }),
  };
}

export function queueStatusFrame({ idle, running, queueDepth }: QueueStatus): FrameOf<'queue_status'> {
  return { type: 'queue_status', idle, running, queue_depth: queueDepth };
}

/**
 * Cuts a line of output so that each frame stays under 48 kB of JSON: the original client closes the session at a
 * message of 60 KiB, and one endless line of a compiler would then cost the whole build (Device Builder 1.26).
 */

/** Room for the line inside one frame, escapes counted; the rest is for the frame's other fields. */
const maxEscapedBytes = 47_000;
/** The most that one UTF-16 unit can cost, as `\u001b`. */
const worstUnitBytes = 6;

/** The pieces, in order; together they are the line. Cuts stand between code points. */
export function outputPieces(line: string): readonly string[] {
  if (line.length * worstUnitBytes <= maxEscapedBytes) return [line];
  const pieces: string[] = [];
  let start = 0;
  let cost = 0;
  for (let at = 0; at < line.length;) {
    const point = line.codePointAt(at) as number;
    const next = escapedBytes(point);
    if (cost + next > maxEscapedBytes) {
      pieces.push(line.slice(start, at));
      start = at;
      cost = 0;
    }
    cost += next;
    at += point > 0xffff ? 2 : 1;
  }
  pieces.push(line.slice(start));
  return pieces;
}

/** What `JSON.stringify` makes of a code point, in bytes of UTF-8; never less. */
function escapedBytes(point: number): number {
  if (point < 0x20) return worstUnitBytes;
  if (point === 0x22 || point === 0x5c) return 2;
  if (point < 0x80) return 1;
  if (point < 0x800) return 2;
  if (point >= 0xd800 && point <= 0xdfff) return worstUnitBytes;
  return point < 0x1_0000 ? 3 : 4;
}
