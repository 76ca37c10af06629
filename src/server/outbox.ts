/**
 * Job frames for one peer: state frames, the queue of frames to send, host paths removed from output, long lines split.
 * A compiler prints faster than a slow link carries, so the queue is bounded: lines of output beyond the limit are dropped
 * with a notice that counts them. State frames are never dropped; they are few, because each answers a request, and
 * session.ts disconnects a peer that requests without reading. The socket gets little at a time, so that a pong, which
 * bypasses the queue, is not late and the peer does not count as dead.
 */
import { realpath } from 'node:fs/promises';

import { systemCode } from '../errors.js';
import type { QueueStatus } from '../jobs/local-work.js';
import type { JobRecord } from '../jobs/record.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import { lowWaterBytes, type ReceiverChannel } from '../protocol/channel.js';
import type { FrameOf } from '../protocol/frames.js';

/** The limit of queued output. Above it, lines are dropped until half of the queue is free. */
const maxWaitingBytes = 1_048_576;
/** The size of a frame without its line. */
const frameBytes = 128;

type JobFrame = FrameOf<'job_state_changed'> | FrameOf<'job_output'> | FrameOf<'queue_status'>;

export type Outbox = ReturnType<typeof createOutbox>;

export function createOutbox(channel: ReceiverChannel) {
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
        if (waiting.length === 0) for (const jobId of dropped.keys()) sendNotice(jobId);
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

  function sendNotice(jobId: string): void {
    const lines = dropped.get(jobId);
    if (lines === undefined) return;
    dropped.delete(jobId);
    const missing = lines === 1 ? '1 line is' : `${lines} lines are`;
    putLine(jobId, `[${missing} missing here: the connection was slower than the build]\n`);
  }

  /** Drops all queued frames. */
  function end(): void {
    waiting = [];
    waitingBytes = 0;
    dropped.clear();
  }

  return {
    state(frame: FrameOf<'job_state_changed'>): void {
      sendNotice(frame.job_id);
      put(frame, frameBytes);
    },
    /** Sends one line of a job's output, which includes its terminator. */
    output(jobId: string, line: string): void {
      const limit = dropped.size > 0 ? maxWaitingBytes / 2 : maxWaitingBytes;
      if (waitingBytes + line.length > limit) {
        dropped.set(jobId, (dropped.get(jobId) ?? 0) + 1);
        return;
      }
      sendNotice(jobId);
      for (const piece of outputPieces(line)) putLine(jobId, piece);
    },
    /** Replaces a queued status, so only the latest is sent. */
    queueStatus(frame: FrameOf<'queue_status'>): void {
      const stale = waiting.find((item) => item.frame.type === 'queue_status');
      if (stale) stale.frame = frame;
      else put(frame, frameBytes);
    },
    end,
  };
}

/**
 * Strips host paths from a line of output for the peer of a job; the job's own log keeps them. ESPHome prints its
 * directories in every log, which would tell a stranger the account, the layout and the ids of other peers.
 */
export type PathStripper = (line: string, key: RemoteKey) => string;

/** Makes paths in the device's own directory relative to it, and replaces each of `directories` with `…`. */
export function createPathStripper(
  layout: Pick<Layout, 'subtree' | 'buildsDir'>,
  directories: readonly string[],
): PathStripper {
  const longestFirst = directories.filter((path) => path.length > 1).toSorted((a, b) => b.length - a.length);
  return function stripPaths(line, key) {
    if (!line.includes('/')) return line;
    let shown = line.includes(layout.buildsDir) ? line.replaceAll(`${layout.subtree(key)}/`, '') : line;
    for (const directory of longestFirst) shown = shown.replaceAll(directory, '…');
    return shown;
  };
}

/**
 * The directories and their real paths: a compiler prints both. One that does not exist has no other path, as the home of
 * an account without one. Throws other system errors: a path that cannot be resolved could not be stripped.
 */
export async function withRealPaths(directories: readonly string[]): Promise<string[]> {
  const real = directories.map(async (directory) => {
    try {
      return await realpath(directory);
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return directory;
      throw error;
    }
  });
  return [...directories, ...(await Promise.all(real))];
}

/** The frame for the job's state (Device Builder 1.26); undefined while the bundle is being unpacked. */
export function stateFrame(job: JobRecord): FrameOf<'job_state_changed'> | undefined {
  if (job.state === 'receiving') return undefined;
  return {
    type: 'job_state_changed',
    job_id: job.peerJobId,
    status: job.state,
    error_message: job.errorMessage,
    // The only reason that clients know; they then build locally.
    ...(job.failureReason === 'provision' && { failure_reason: 'provision' }),
  };
}

/**
 * With one lane, says whether builds run or wait, as Device Builder does. With several, a lane is idle as long as a slot
 * is free: a client prefers idle servers, so it sends the next build to the next lane.
 */
export function queueStatusFrame(
  { idle, running, queueDepth, freeSlots }: QueueStatus,
  lanes: number,
): FrameOf<'queue_status'> {
  if (lanes > 1 && freeSlots > queueDepth)
    return { type: 'queue_status', idle: true, running: false, queue_depth: 0 };
  return { type: 'queue_status', idle, running, queue_depth: queueDepth };
}

/** The limit for a line inside one frame of 48 kB, escapes included. */
const maxEscapedBytes = 47_000;
/** The most bytes for one UTF-16 unit, as in `\u001b`. */
const worstUnitBytes = 6;

/**
 * Splits a line between code points so that each frame stays under 48 kB of JSON: Device Builder 1.26 closes the session
 * at a message of 60 KiB, so one endless line of a compiler would cost the whole build.
 */
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

/** At least the UTF-8 size of the code point after `JSON.stringify`. */
function escapedBytes(point: number): number {
  if (point < 0x20) return worstUnitBytes;
  if (point === 0x22 || point === 0x5c) return 2;
  if (point < 0x80) return 1;
  if (point < 0x800) return 2;
  if (point >= 0xd800 && point <= 0xdfff) return worstUnitBytes;
  return point < 0x1_0000 ? 3 : 4;
}
