/**
 * Orders the processes that wait for one lock: each writes a ticket, a small file named by its time, and only the
 * holder of the oldest one tries the lock. Without it the library's retries starved half of eight processes. The order is
 * a courtesy, not protection: a ticket counts only while its holder keeps touching it, so a suspended waiter is skipped,
 * and nothing breaks when two processes think they are next.
 */
import { readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { systemClock } from '../async/clock.js';
import { makeDirectory } from '../disk/atomic-write.js';
import { makerOf, standingOf, temporaryName } from '../disk/names.js';
import { systemCode } from '../errors.js';
import { cancelled, timedOut, type EnterOptions } from './fifo.js';
import { tryFileLock, type FileLock, type FileLockOptions, createAgeJudge } from './file-lock.js';
import { readHolder } from './owner-record.js';

const freshMs = 2_000;
/** Any process removes a ticket this old. */
const deadMs = 60_000;
const pattern = /^turn-\d{15}\./;

/** Joins the waiters in `directory`. Throws system errors. */
async function takeTicket(directory: string) {
  const time = String(Date.now()).padStart(15, '0');
  const name = `turn-${time}.${temporaryName()}`;
  const file = join(directory, name);
  const write = (): Promise<void> => writeFile(file, '', { mode: 0o600 });
  await write();
  return {
    name,
    /** Shows that its holder still waits. Call it at least every second. */
    async touch(): Promise<void> {
      const now = new Date();
      try {
        await utimes(file, now, now);
      } catch (error) {
        if (systemCode(error) !== 'ENOENT') throw error;
        await write();
      }
    },
    drop: (): Promise<void> => rm(file, { force: true }),
  };
}

/** The tickets of current waiters, oldest first. Creates the directory if missing. */
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
    await makeDirectory(directory);
    return [];
  }
}

export interface WaitOptions extends Omit<EnterOptions, 'reason'>, Pick<FileLockOptions, 'onLost'> {
  /** A time of `performance.now()`. */
  readonly until: number;
  readonly timing: Pick<FileLockOptions, 'staleMs' | 'updateMs'>;
}

/** First pause between two checks, per place in the order; it grows while the order does not change. */
const pauseMs = 5;
const longestPauseMs = 200;

/** Locks a directory, which is created if missing. Throws CANCELLED, LOCK_TIMEOUT and system errors. */
export async function waitForFileLock(directory: string, options: WaitOptions): Promise<FileLock> {
  const { signal, until, timing, onLost, onBlocked } = options;
  const lockOptions = { ...timing, onLost, ageOf: createAgeJudge({ ...timing, clock: systemClock }) };
  let ticket: Awaited<ReturnType<typeof takeTicket>> | undefined;
  let wasBlocked = false;
  let place = -1;
  let placeSince = 0;
  try {
    for (;;) {
      if (signal?.aborted) throw cancelled();
      const order = await freshTickets(directory);
      const isNext = order[0] === ticket?.name;
      const lock = isNext ? await tryLock(directory, lockOptions) : null;
      if (lock) return lock;

      // Without a ticket, on a full disk for instance, it waits behind all others.
      if (ticket) {
        await ticket.touch().catch(() => {});
      } else {
        const holder = onBlocked && !wasBlocked ? readHolder(directory) : null;
        ticket = await takeTicket(directory).catch(() => undefined);
        if (holder) onBlocked?.({ reason: holder.reason });
        wasBlocked = true;
      }
      const now = performance.now();
      if (now >= until) throw timedOut(readHolder(directory));
      const before = ticket ? order.indexOf(ticket.name) : order.length;
      if (before !== place) placeSince = now;
      place = before;
      const pause = Math.min(pauseMs * (Math.abs(place) + 1) + (now - placeSince) / 20, longestPauseMs);
      await pauseFor(Math.min(pause * (0.75 + Math.random() / 2), until - now), signal);
    }
  } finally {
    // Once nobody touches it, it stops counting.
    await ticket?.drop().catch(() => {});
  }
}

async function tryLock(directory: string, options: FileLockOptions): Promise<FileLock | null> {
  try {
    return await tryFileLock(directory, options);
  } catch (error) {
    // Our lock was gone before we could verify it, as after a suspension: a failed attempt.
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
}

async function pauseFor(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, { signal });
  } catch {
    throw cancelled();
  }
}
