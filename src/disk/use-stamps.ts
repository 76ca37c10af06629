/**
 * When something was last used: a small file for each, written by whoever used it. A modification time would not tell:
 * compiling changes nothing in a toolchain, and unpacking one gives it the times of its archive.
 *
 * A use that is not known is never taken for an old one. What has no stamp counts as used now, and so does a time to
 * come or one before this software, for then the clock was wrong.
 */
import { rm } from 'node:fs/promises';

import type { Clock } from '../async/clock.js';
import type { Log } from '../log.js';
import { writeAtomic } from './atomic-write.js';
import { readRegular } from './open-regular.js';

export interface UseStamps {
  /** Notes that it is used now; to the minute. Never rejects. */
  note(file: string): Promise<void>;
  /** Milliseconds since 1970. What cannot be is corrected on the disk as well. Never rejects. */
  last(file: string): Promise<number>;
  /** Never rejects. */
  forget(file: string): Promise<void>;
}

export interface UseStampsOptions {
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

export function createUseStamps({ clock, log }: UseStampsOptions): UseStamps {
  /** What the disk did not take. */
  const adopted = new Map<string, number>();

  function isPossible(time: number | undefined): time is number {
    return time !== undefined && canBeUse(time, clock.wall());
  }

  async function write(file: string, time: number): Promise<void> {
    try {
      await writeAtomic(file, String(time));
      adopted.delete(file);
    } catch (error) {
      adopted.set(file, time);
      log.warn({ file, err: error }, 'tool use not recorded');
    }
  }

  return {
    async note(file) {
      const time = clock.wall();
      const last = await read(file);
      if (last === undefined || Math.abs(time - last) >= precisionMs) await write(file, time);
    },
    async last(file) {
      const found = [await read(file), adopted.get(file)].find(isPossible);
      if (found !== undefined) return found;
      const time = clock.wall();
      await write(file, time);
      return time;
    },
    async forget(file) {
      adopted.delete(file);
      await rm(file, { force: true }).catch(() => {});
    },
  };
}

const maxBytes = 16;

async function read(file: string): Promise<number | undefined> {
  const text = await readRegular(file, maxBytes).then(String, () => '');
  return /^\d{1,16}$/.test(text) ? Number(text) : undefined;
}

/**
 * Which times can be those of a use. A board without a battery begins in 1970, and a clock may be set back: what was noted
 * meanwhile would look old for ever, or new for ever. Both count as now.
 */

/** Uses are noted to the minute, and clocks differ by as much. */
export const precisionMs = 60_000;
/** 2024: before it there was none of this software. */
const earliest = 1_704_067_200_000;

/** Both in milliseconds since 1970. */
export function canBeUse(time: number, now: number): boolean {
  return time >= earliest && time <= now + precisionMs;
}
