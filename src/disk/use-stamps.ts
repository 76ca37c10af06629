/**
 * Records when something was last used, in a small file each. Modification times would not show it: compiling changes
 * nothing in a toolchain, and unpacking one restores the times of its archive. An unknown use never counts as an old one:
 * a missing or impossible time (see {@link canBeUse}) counts as now.
 */
import { rm } from 'node:fs/promises';

import type { Clock } from '../async/clock.js';
import type { Log } from '../log.js';
import { writeAtomic } from './atomic-write.js';
import { readRegular } from './open-regular.js';

export interface UseStampsOptions {
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

/** No method rejects. */
export function createUseStamps({ clock, log }: UseStampsOptions) {
  /** Times that could not be written to disk. */
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
    /** Records a use now, to the minute. */
    async recordUse(file: string): Promise<void> {
      const time = clock.wall();
      const last = await read(file);
      if (last === undefined || Math.abs(time - last) >= precisionMs) await write(file, time);
    },
    /** Milliseconds since 1970. Also corrects an impossible time on disk. */
    async last(file: string): Promise<number> {
      const found = [await read(file), adopted.get(file)].find(isPossible);
      if (found !== undefined) return found;
      const time = clock.wall();
      await write(file, time);
      return time;
    },
    async forget(file: string): Promise<void> {
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

/** Uses are recorded to the minute, and clocks differ by as much. */
export const precisionMs = 60_000;
/** 2024, before which this software did not exist. */
const earliest = 1_704_067_200_000;

/**
 * Whether a stored time is possible; other times would look old or new forever, as those of a board without a battery,
 * which starts in 1970. Both in milliseconds since 1970.
 */
export function canBeUse(time: number, now: number): boolean {
  return time >= earliest && time <= now + precisionMs;
}
