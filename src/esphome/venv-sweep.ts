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

export interface SweepOptions {
  readonly venvsDir: string;
  readonly locksDir: string;
  readonly timing: LockTiming;
  /** How many are kept besides those in use. */
  readonly keep: number;
  /** How long to wait for the lock of one that is to go, in milliseconds. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
}

interface Found {
  readonly place: Place;
  /** Null for one that is not ready: half-made. */
  readonly usedAt: number | null;
}

/** Never rejects: what cannot be removed is logged. */
export async function sweepVenvs(options: SweepOptions): Promise<void> {
  const { keep, signal, log } = options;
  try {
    const found = await venvsIn(options);
    const half = found.filter(({ usedAt }) => usedAt === null);
    const whole = found.filter(({ usedAt }) => usedAt !== null);
    const oldestLast = whole.toSorted((a, b) => (b.usedAt ?? 0) - (a.usedAt ?? 0));
    for (const each of [...half, ...oldestLast.slice(keep)]) {
      if (!signal.aborted) await remove(each, options);
    }
  } catch (error) {
    log.warn({ error: messageOf(error) }, 'installed versions of ESPHome cannot be looked at');
  }
}

/** Those that nobody uses. */
async function venvsIn({ venvsDir, locksDir, timing }: SweepOptions): Promise<Found[]> {
  const entries = await readdir(venvsDir, { withFileTypes: true });
  const found: Found[] = [];
  for (const { name } of entries.filter((entry) => entry.isDirectory())) {
    const place = placeOf({ venvsDir, locksDir, name });
    if (await isInUse(place, timing)) continue;
    found.push({ place, usedAt: (await readyIn(place)) === null ? null : await lastUse(place) });
  }
  return found;
}

async function remove({ place, usedAt }: Found, options: SweepOptions): Promise<void> {
  const { timing, waitMs, signal, log } = options;
  const { directory } = place;
  try {
    const wish = { reason: 'removing an unused ESPHome', deadlineMs: waitMs, signal, timing, log };
    const lease = await acquireAt(place.lockDir, wish);
    try {
      const now = (await readyIn(place)) === null ? null : await lastUse(place);
      // Installed or used since it was looked at.
      if (now !== usedAt) return;
      if (await removeUnused(place, lease, timing)) log.info({ directory }, 'an unused ESPHome was removed');
    } finally {
      await lease.release();
    }
  } catch (error) {
    if (signal.aborted || isReceiverError(error, 'LOCK_TIMEOUT')) return;
    log.warn({ directory, error: messageOf(error) }, 'an unused ESPHome could not be removed');
  }
}
