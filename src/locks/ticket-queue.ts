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

import { makerOf, standingOf, temporaryName } from '../disk/temporary.js';
import { systemCode } from '../errors.js';

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
export async function takeTicket(directory: string): Promise<Ticket> {
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
export async function freshTickets(directory: string): Promise<readonly string[]> {
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
