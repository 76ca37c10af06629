/**
 * Fourth layer of the lock: numbers that only ever rise, one for each time that the lock was taken. Two owners
 * never hold the same number, so an owner that stood still and woke up late can be told from its successor by
 * every reader, however wrong clocks and locks have been meanwhile.
 *
 * A number is a file made by exclusive creation. The newest few are kept; the newest is never removed, so the
 * directory must not be removed either, not even with the build that it guards. The calls are synchronous: a
 * handful of microseconds each, on a directory that has just answered.
 */
import { closeSync, openSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import { ReceiverError, systemCode } from '../errors.js';

export interface Fence {
  /** Takes a number that is higher than every number taken before. Throws system errors. */
  next(): number;
  /** The highest number taken so far, 0 when there is none. */
  newest(): number;
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
/** Far more than owners that come at once; a planted number beyond all that we can write must not hang us. */
const maxTries = 1_000;
const pattern = /^fence-(\d{1,15})$/;

/** The fence in an existing directory. Any number of processes may open it. */
export function openFence(directory: string): Fence {
  const fence: Fence = {
    next() {
      for (let tries = 0; tries < maxTries; tries += 1) {
        const taken = numbersIn(directory);
        const number = (taken.at(-1) ?? 0) + 1;
        const mine = join(directory, `fence-${number}`);
        if (!create(mine)) continue;
        // Between the look and the creation others may have taken this number, gone on and removed it again.
        if (fence.newest() !== number) {
          rmSync(mine, { force: true });
          continue;
        }
        for (const old of taken.slice(0, 1 - keptNumbers))
          rmSync(join(directory, `fence-${old}`), { force: true });
        return number;
      }
      throw new ReceiverError('STORAGE', 'the numbers of a lock are used up or planted', { directory });
    },

    newest() {
      return numbersIn(directory).at(-1) ?? 0;
    },

    async publish(number, act) {
      refuseOld(number);
      const result = await act();
      refuseOld(number);
      return result;
    },
  };

  function refuseOld(number: number): void {
    const newest = fence.newest();
    // Lower than ours would mean that somebody has removed the directory: no reason to go on either.
    if (newest !== number)
      throw new ReceiverError('FENCED', 'a newer owner of the lock is at work', { number, newest });
  }

  return fence;
}

function numbersIn(directory: string): number[] {
  return readdirSync(directory)
    .map((name) => Number(pattern.exec(name)?.[1] ?? Number.NaN))
    .filter((number) => Number.isSafeInteger(number))
    .toSorted((a, b) => a - b);
}

function create(file: string): boolean {
  try {
    closeSync(openSync(file, 'wx', 0o600));
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}
