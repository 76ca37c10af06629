/**
 * Removes the environments that were not used for the longest time, and what an interrupted installation has left:
 * each is 220 MB, and whoever may ask for versions could fill the disk. One that is in use, here or in another
 * process, stays; so does one whose lock is held.
 */
import { readdir } from 'node:fs/promises';

import { isReceiverError, messageOf } from '../errors.js';
import { acquireAt, type LockTiming } from '../locks/lease.js';
import type { Log } from '../log.js';
import { isInUse, lastUse, placeOf, readyIn, removeUnused, type Place } from './venv-place.js';

export interface VenvsPlace {
  readonly venvsDir: string;
  readonly locksDir: string;
  readonly timing: LockTiming;
}

export interface VenvRemoval {
  readonly timing: LockTiming;
  /** How long to wait for the lock of one that is to go, in milliseconds. */
  readonly waitMs: number;
  readonly signal?: AbortSignal;
  readonly log: Log;
}

export interface SweepOptions extends VenvsPlace, VenvRemoval {
  /** How many are kept besides those in use. */
  readonly keep: number;
  readonly signal: AbortSignal;
}

export interface FoundVenv {
  readonly name: string;
  readonly place: Place;
  /** The environment that counts; null for one that is half-made. */
  readonly ready: string | null;
  /** Milliseconds since 1970; null for one that is half-made. */
  readonly usedAt: number | null;
  readonly isInUse: boolean;
}

/** Never rejects: what cannot be removed is logged. */
export async function sweepVenvs(options: SweepOptions): Promise<void> {
  const { keep, signal, log } = options;
  try {
    const found = (await findVenvs(options)).filter((venv) => !venv.isInUse);
    const half = found.filter(({ usedAt }) => usedAt === null);
    const whole = found.filter(({ usedAt }) => usedAt !== null);
    const oldestLast = whole.toSorted((a, b) => (b.usedAt ?? 0) - (a.usedAt ?? 0));
    for (const each of [...half, ...oldestLast.slice(keep)]) {
      if (!signal.aborted) await sweep(each, options);
    }
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'installed versions of ESPHome cannot be looked at');
  }
}

async function sweep(venv: FoundVenv, options: SweepOptions): Promise<void> {
  const { signal, log } = options;
  try {
    await removeVenv(venv, options);
  } catch (error) {
    if (signal.aborted || isReceiverError(error, 'LOCK_TIMEOUT')) return;
    const { directory } = venv.place;
    log.warn({ directory, error: messageOf(error) }, 'an unused ESPHome could not be removed');
  }
}

/** All that there are, in no order. Throws system errors. */
export async function findVenvs({ venvsDir, locksDir, timing }: VenvsPlace): Promise<FoundVenv[]> {
  const entries = await readdir(venvsDir, { withFileTypes: true });
  const found: FoundVenv[] = [];
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const place = placeOf({ venvsDir, locksDir, name });
    const isUsed = await isInUse(place, timing);
    const ready = await readyIn(place);
    found.push({ name, place, ready, usedAt: ready === null ? null : await lastUse(place), isInUse: isUsed });
  }
  return found;
}

/**
 * Removes one under its lock; false when it is in use, or was used or installed since it was found. Throws
 * CANCELLED, LOCK_TIMEOUT, STORAGE and system errors.
 */
export async function removeVenv(
  { place, usedAt }: Pick<FoundVenv, 'place' | 'usedAt'>,
  { timing, waitMs, signal, log }: VenvRemoval,
): Promise<boolean> {
  const wish = { reason: 'removing an unused ESPHome', deadlineMs: waitMs, signal, timing, log };
  const lease = await acquireAt(place.lockDir, wish);
  try {
    const now = (await readyIn(place)) === null ? null : await lastUse(place);
    if (now !== usedAt || !(await removeUnused(place, lease, timing))) return false;
    log.info({ directory: place.directory }, 'an unused ESPHome was removed');
    return true;
  } finally {
    await lease.release();
  }
}
