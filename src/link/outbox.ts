/**
 * The frames about jobs on their way to one peer, in order.
 *
 * A compiler prints faster than a slow link carries. What waits is bounded: lines of output are dropped beyond it,
 * with one notice that says how many, and states never are: they are few, for each answers something of the peer's, and
 * one that asks and does not read is cut off (session.ts). Little is handed to the socket at a time, so that a
 * pong, which does not pass here, never waits behind a backlog and the peer is not taken for dead.
 */
import type { ReceiverChannel } from './channel.js';
import type { FrameOf } from './frames.js';
import { outputPieces } from './output-pieces.js';

/** Unsent bytes in the socket above which a sender of much waits. */
export const lowWaterBytes = 65_536;
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
