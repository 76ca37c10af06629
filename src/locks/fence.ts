/**
 * Fourth layer of the lock: a number for each acquisition, higher than all before. Two owners never hold the same number,
 * so every reader can tell an owner that was suspended from its successor, however wrong clocks and locks were. A number
 * is a file made by exclusive creation. The newest is never removed unless the parent directory has a higher one: there
 * the numbering of removed directories continues.
 */
import { closeSync, openSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';

import { ReceiverError, systemCode } from '../errors.js';

const keptNumbers = 4;
const retiredGap = 1_000;
/** Far more than concurrent owners; a planted number too large to exceed must not cause an endless loop. */
const maxTries = 1_000;
const pattern = /^fence-(\d{1,15})$/;

/** The fence in an existing directory. Any number of processes can open it. */
export function openFence(directory: string) {
  const fence = {
    /** Takes a number higher than all before. Throws system errors. */
    next(): number {
      for (let tries = 0; tries < maxTries; tries += 1) {
        const taken = numbersIn(directory);
        const number = (taken.at(-1) ?? numbersIn(dirname(directory)).at(-1) ?? 0) + 1;
        const mine = join(directory, `fence-${number}`);
        if (!create(mine)) continue;
        // Between the read and the creation others can have taken this number, continued and removed it.
        if (fence.newest() !== number) {
          rmSync(mine, { force: true });
          continue;
        }
        for (const old of taken.slice(0, 1 - keptNumbers))
          rmSync(join(directory, `fence-${old}`), { force: true });
        return number;
      }
      throw new ReceiverError('STORAGE', `no free fence number after ${maxTries} attempts`, { directory });
    },

    /** The highest number taken so far; 0 when there is none. */
    newest(): number {
      return numbersIn(directory).at(-1) ?? 0;
    },

    /**
     * Continues the numbering in the parent, so that the directory can be removed. Leaves a gap: an owner that came while the
     * remover was suspended must not have the number of the next one.
     */
    retire(): void {
      const parent = dirname(directory);
      const last = fence.newest() + retiredGap;
      const older = numbersIn(parent);
      if ((older.at(-1) ?? 0) < last) create(join(parent, `fence-${last}`));
      for (const old of older) if (old < last) rmSync(join(parent, `fence-${old}`), { force: true });
    },

    /**
     * Runs `act` for the owner of `number`. Throws FENCED when a newer owner exists, before or after `act`. In the second
     * case the newer owner may or may not have seen the effect of `act`, so it must be one that a newer owner overrules:
     * a file whose name contains the number, or an exclusive creation.
     *
     * When this resolves, every owner with a higher number came after `act` and sees its effect, provided that it took
     * its number before it read.
     */
    async publish<T>(number: number, act: () => Promise<T>): Promise<T> {
      assertNewest(number);
      const result = await act();
      assertNewest(number);
      return result;
    },
  };

  function assertNewest(number: number): void {
    const newest = fence.newest();
    // A lower number means that the directory was removed: also a reason to stop.
    if (newest !== number)
      throw new ReceiverError('FENCED', 'the lock has a newer owner', { number, newest });
  }

  return fence;
}

function numbersIn(directory: string): number[] {
  return namesIn(directory)
    .map((name) => Number(pattern.exec(name)?.[1] ?? Number.NaN))
    .filter((number) => Number.isSafeInteger(number))
    .toSorted((a, b) => a - b);
}

/** None in a directory that was removed: its numbers are older than any that follow. */
function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
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
