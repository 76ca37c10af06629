/**
 * Waiting for a lock that another process holds: in turn, cancellable, up to a deadline, and cheap for the
 * minutes that a compile takes. The library's own retries can do none of that.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { systemCode } from '../errors.js';
import { tryFileLock, type FileLock, type FileLockOptions } from './file-lock.js';
import { cancelled, timedOut, type Wish } from './fifo.js';
import { createAgeJudge } from './lock-age.js';
import { readHolder } from './owner-record.js';
import { freshTickets, takeTicket, type Ticket } from './turns.js';

export interface WaitOptions {
  readonly reason: string;
  readonly signal?: AbortSignal | undefined;
  /** A time of `performance.now()`. */
  readonly until: number;
  readonly timing: Pick<FileLockOptions, 'staleMs' | 'updateMs'>;
  readonly onLost: FileLockOptions['onLost'];
  readonly onBlocked?: ((holder: Wish) => void) | undefined;
}

/** First pauses between two looks, for the next in turn and for the others; they grow to the longest. */
const nextPauseMs = 5;
const otherPauseMs = 30;
const longestPauseMs = 200;

/** Locks an existing directory. Throws CANCELLED, LOCK_TIMEOUT and system errors. */
export async function waitForFileLock(directory: string, options: WaitOptions): Promise<FileLock> {
  const { reason, signal, until, timing, onLost, onBlocked } = options;
  const lockOptions = { ...timing, onLost, ageOf: createAgeJudge(timing) };
  const begun = performance.now();
  let ticket: Ticket | undefined;
  try {
    for (;;) {
      if (signal?.aborted) throw cancelled();
      const [first] = await freshTickets(directory);
      const isNext = first === ticket?.name;
      const lock = isNext ? await attempt(directory, lockOptions) : null;
      if (lock) return lock;

      if (ticket) {
        await ticket.touch();
      } else {
        ticket = await takeTicket(directory, reason);
        const holder = onBlocked && (await readHolder(directory));
        if (holder) onBlocked({ reason: holder.reason });
      }
      const now = performance.now();
      if (now >= until) throw timedOut(await readHolder(directory));
      const pause = Math.min((isNext ? nextPauseMs : otherPauseMs) + (now - begun) / 20, longestPauseMs);
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
