/**
 * Order among processes that wait for one lock: each puts down a ticket, a small file named by its time, and only
 * the holder of the oldest one tries the lock. Without it the library's retries left half of eight processes
 * with nothing at all.
 *
 * An order is a courtesy and no protection: a ticket counts only while its holder keeps touching it, so a waiter
 * that stands still is passed over after two seconds, one that has died at once where that can be seen, and nothing
 * breaks when two think they are next.
 */
import { mkdir, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { systemClock } from '../async/clock.js';
import { makerOf, standingOf, temporaryName } from '../disk/temporary.js';
import { systemCode } from '../errors.js';
import { cancelled, timedOut, type LineRequest } from './fifo.js';
import { tryFileLock, type FileLock, type FileLockOptions, createAgeJudge } from './file-lock.js';
import { readHolder } from './owner-record.js';

export interface Ticket {
  readonly name: string;
  /** Shows that its holder still waits. To be called at least every second. */
  touch(): Promise<void>;
  drop(): Promise<void>;
}

const freshMs = 2_000;
/** So old, a ticket is removed by whoever sees it. */
const deadMs = 60_000;
const pattern = /^turn-\d{15}\./;

/** Joins the waiters in `directory`. Throws system errors. */
async function takeTicket(directory: string): Promise<Ticket> {
  const time = String(Date.now()).padStart(15, '0');
  const name = `turn-${time}.${temporaryName()}`;
  const file = join(directory, name);
  const write = (): Promise<void> => writeFile(file, '', { mode: 0o600 });
  await write();
  return {
    name,
    async touch() {
      const now = new Date();
      try {
        await utimes(file, now, now);
      } catch (error) {
        if (systemCode(error) !== 'ENOENT') throw error;
        await write();
      }
    },
    drop: () => rm(file, { force: true }),
  };
}

/** The tickets whose holders wait now, the oldest first. Makes the directory when it is missing. */
async function freshTickets(directory: string): Promise<readonly string[]> {
  const names = (await namesIn(directory)).filter((name) => pattern.test(name)).toSorted();
  const fresh: string[] = [];
  for (const name of names) {
    const file = join(directory, name);
    const maker = makerOf(name);
    if (maker === null || standingOf(maker) === 'gone') {
      await rm(file, { force: true });
      continue;
    }
    const age = await stat(file).then(
      ({ mtimeMs }) => Math.abs(Date.now() - mtimeMs),
      () => Infinity,
    );
    if (age < freshMs) fresh.push(name);
    else if (age > deadMs) await rm(file, { force: true });
  }
  return fresh;
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return [];
  }
}

/**
 * Waiting for a lock that another process holds: in turn, cancellable, up to a deadline, and cheap for the
 * minutes that a compile takes. The library's own retries can do none of that.
 */
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
        const holder = onBlocked && readHolder(directory);
        ticket = await takeTicket(directory);
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
