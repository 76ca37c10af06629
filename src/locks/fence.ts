/**
 * Fourth layer of the lock: numbers that only ever rise, one for each time that the lock was taken. Two owners
 * never hold the same number, so an owner that stood still and woke up late can be told from its successor by
 * every reader, however wrong clocks and locks have been meanwhile.
 *
 * A number is a file made by exclusive creation. The newest few are kept; the newest is never removed, so the
 * directory must not be removed either, not even with the build that it guards.
 */
import { open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { ReceiverError, systemCode } from '../errors.js';

export interface Fence {
  /** Takes a number that is higher than every number taken before. Throws system errors. */
  next(): Promise<number>;
  /** The highest number taken so far, 0 when there is none. */
  newest(): Promise<number>;
  /**
   * Runs `act` for the owner of `number`, and throws FENCED when a newer owner exists: at once when it is known
   * before, and also when it came while `act` ran. Then what `act` did may or may not have been seen, so it must
   * be something that a newer owner overrules: a file whose name holds the number, or an exclusive creation.
   *
   * When this resolves, every owner with a higher number has come after `act` and finds what it did, provided
   * that it took its number before it looked.
   */
  publish<T>(number: number, act: () => Promise<T>): Promise<T>;
}

const keptNumbers = 4;
const pattern = /^fence-(\d{1,15})$/;

/** The fence in an existing directory. Any number of processes may open it. */
export function openFence(directory: string): Fence {
  const fence: Fence = {
    async next() {
      for (;;) {
        const taken = await numbersIn(directory);
        const number = (taken.at(-1) ?? 0) + 1;
        const mine = join(directory, `fence-${number}`);
        if (!(await create(mine))) continue;
        // Between the look and the creation others may have taken this number, gone on and removed it again.
        if ((await fence.newest()) !== number) {
          await rm(mine, { force: true });
          continue;
        }
        const old = taken.slice(0, 1 - keptNumbers);
        await Promise.all(old.map((n) => rm(join(directory, `fence-${n}`), { force: true })));
        return number;
      }
    },

    async newest() {
      return (await numbersIn(directory)).at(-1) ?? 0;
    },

    async publish(number, act) {
      await refuseOld(number);
      const result = await act();
      await refuseOld(number);
      return result;
    },
  };

  async function refuseOld(number: number): Promise<void> {
    const newest = await fence.newest();
    // Lower than ours would mean that somebody has removed the directory: no reason to go on either.
    if (newest !== number)
      throw new ReceiverError('FENCED', 'a newer owner of the lock is at work', { number, newest });
  }

  return fence;
}

async function numbersIn(directory: string): Promise<number[]> {
  const names = await readdir(directory);
  return names
    .map((name) => Number(pattern.exec(name)?.[1] ?? Number.NaN))
    .filter((number) => Number.isSafeInteger(number))
    .toSorted((a, b) => a - b);
}

async function create(file: string): Promise<boolean> {
  try {
    await (await open(file, 'wx', 0o600)).close();
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}
