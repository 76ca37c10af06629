/**
 * Waiting for a lock that another process holds: in turn, cancellable, up to a deadline, and cheap for the
 * minutes that a compile takes. The library's own retries can do none of that.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { systemClock } from '../async/clock.js';
import { systemCode } from '../errors.js';
import { cancelled, timedOut, type LineRequest } from './fifo.js';
import { tryFileLock, type FileLock, type FileLockOptions, createAgeJudge } from './file-lock.js';
import { readHolder } from './owner-record.js';
import { freshTickets, takeTicket, type Ticket } from './ticket-queue.js';

export interface WaitOptions {
  readonly signal?: AbortSignal | undefined;
  /** A time of `performance.now()`. */
  readonly until: number;
  readonly timing: Pick<FileLockOptions, 'staleMs' | 'updateMs'>;
  readonly onLost: FileLockOptions['onLost'];
  readonly onBlocked?: ((holder: LineRequest) => void) | undefined;
}

/** First pause between two looks, for each place in the order; it grows while nothing moves. */
const pauseMs = 5;
const longestPauseMs = 200;

/** Locks a directory, which is made when missing. Throws CANCELLED, LOCK_TIMEOUT and system errors. */
export async function waitForFileLock(directory: string, options: WaitOptions): Promise<FileLock> {
  const { signal, until, timing, onLost, onBlocked } = options;
  const lockOptions = { ...timing, onLost, ageOf: createAgeJudge({ ...timing, clock: systemClock }) };
  let ticket: Ticket | undefined;
  let place = -1;
  let placeSince = 0;
  try {
    for (;;) {
      if (signal?.aborted) throw cancelled();
      const order = await freshTickets(directory);
      const isNext = order[0] === ticket?.name;
      const lock = isNext ? await attempt(directory, lockOptions) : null;
      if (lock) return lock;

      if (ticket) {
        await ticket.touch();
      } else {
        ticket = await takeTicket(directory);
        const holder = onBlocked && readHolder(directory);
        if (holder) onBlocked({ reason: holder.reason });
      }
      const now = performance.now();
      if (now >= until) throw timedOut(readHolder(directory));
      const before = order.indexOf(ticket.name);
      if (before !== place) placeSince = now;
      place = before;
      const pause = Math.min(pauseMs * (Math.abs(place) + 1) + (now - placeSince) / 20, longestPauseMs);
      await rest(Math.min(pause * (0.75 + Math.random() / 2), until - now), signal);
    }
  } finally {
    await ticket?.drop();
  }
}

async function attempt(directory: string, options: FileLockOptions): Promise<FileLock | null> {
  try {
    return await tryFileLock(directory, options);
  } catch (error) {
    // Ours had gone before we could make sure of it, as after a standstill: that is an attempt without success.
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
}

async function rest(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    throw cancelled();
  }
}
