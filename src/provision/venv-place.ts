/**
 * The directories of Python environments: finding, using and removing them. In each, the link `ready` names the current
 * environment and the file `used` holds the time of the last request, because compiling with an environment changes no
 * modification time. The lock's directory contains a mark for each process that uses the environment.
 *
 * An environment takes 220 MB, and anyone who can request versions could fill the disk, so a sweep removes the least
 * recently used ones and the remains of interrupted installations. It keeps those in use and those whose lock is held.
 */
import { lstat, readlink, realpath, rename, rm, rmdir, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { writeAtomic } from '../disk/atomic-write.js';
import { namesIn } from '../disk/names.js';
import { readRegular } from '../disk/open-regular.js';
import { removeTree } from '../disk/remove.js';
import { temporaryName } from '../disk/names.js';
import { systemCode, isReceiverError } from '../errors.js';
import { type Lease, type LockTiming, acquireAt } from '../locks/lease.js';
import { hashName } from '../paths/segments.js';
import { addUser, hasUsers, type ToolUser } from '../locks/shared-use.js';
import type { Log } from '../log.js';

export interface VenvPlace {
  readonly directory: string;
  readonly lockDir: string;
}

export function placeOf({
  venvsDir,
  locksDir,
  name,
}: Readonly<Record<'venvsDir' | 'locksDir' | 'name', string>>): VenvPlace {
  return { directory: join(venvsDir, name), lockDir: join(locksDir, hashName('venv', name)) };
}

/** The current environment, links resolved; null if there is none. Throws other system errors. */
export async function readyIn({ directory }: VenvPlace): Promise<string | null> {
  return realpath(join(directory, 'ready')).catch(nullIfMissing);
}

/** Call it under the lease. Readers see either the old environment or the new one. */
export async function markReady({ directory }: VenvPlace, venv: string): Promise<void> {
  const link = join(directory, temporaryName());
  await symlink(basename(venv), link);
  await rename(link, join(directory, 'ready'));
}

/** Marks the environment as used by this process. Call it before {@link readyIn}, see {@link removeUnused}. */
export async function useOf({ lockDir }: VenvPlace, timing: LockTiming): Promise<ToolUser> {
  return addUser(lockDir, timing);
}

export async function isInUse({ lockDir }: VenvPlace, { staleMs }: LockTiming): Promise<boolean> {
  return (await hasUsers(lockDir, staleMs).catch(nullIfMissing)) ?? false;
}

/** The file of {@link stampUse}: milliseconds since 1970, in digits. */
export function usedFile({ directory }: VenvPlace): string {
  return join(directory, 'used');
}

/** Records that the environment was used at `now` (milliseconds since 1970). The directory must exist. */
export async function stampUse(place: VenvPlace, now = Date.now()): Promise<void> {
  await writeAtomic(usedFile(place), String(now));
}

const maxStampBytes = 16;

/** The time of the last use; 0 if unknown. A time in the future counts as now, because the clock was wrong then. */
async function lastUse(place: VenvPlace): Promise<number> {
  const time = Number(await readRegular(usedFile(place), maxStampBytes).then(String, () => ''));
  return Number.isFinite(time) ? Math.min(time, Date.now()) : 0;
}

/**
 * Removes the environment; false if it is in use. Call it under the lease. A new user sets its mark first and looks for
 * `ready` afterwards, so this function sees the mark, or the user no longer finds `ready`.
 */
export async function removeUnused(place: VenvPlace, lease: Lease, timing: LockTiming): Promise<boolean> {
  const link = join(place.directory, 'ready');
  return lease.publish(async () => {
    const target = await readlink(link).catch(nullIfMissing);
    await rm(link, { force: true });
    if (await isInUse(place, timing)) {
      if (target !== null) await symlink(target, link);
      return false;
    }
    await emptyPlace(place);
    await removeIfEmpty(place);
    return true;
  });
}

/** Removes the link first: it must never point to an incomplete environment. */
export async function emptyPlace({ directory }: VenvPlace): Promise<void> {
  const names = await namesIn(directory);
  await rm(join(directory, 'ready'), { force: true });
  for (const name of names) await removeTree(join(directory, name));
}

export async function removeIfEmpty({ directory }: VenvPlace): Promise<void> {
  await rmdir(directory).catch((error: unknown) => {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(systemCode(error) ?? '')) throw error;
  });
}

function nullIfMissing(error: unknown): null {
  if (systemCode(error) === 'ENOENT') return null;
  throw error;
}

interface SweepOptions {
  readonly venvsDir: string;
  readonly locksDir: string;
  readonly timing: LockTiming;
  /** How many to keep besides those in use. */
  readonly keep: number;
  /** How long to wait for the lock of an environment to remove. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
}

export interface FoundVenv {
  readonly name: string;
  readonly place: VenvPlace;
  /** The current environment; null if incomplete. */
  readonly ready: string | null;
  readonly usedAt: number | null;
  readonly isInUse: boolean;
}

/** Never rejects: logs failed removals. */
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
    log.warn({ err: error }, 'release sweep failed');
  }
}

async function sweep(venv: FoundVenv, options: SweepOptions): Promise<void> {
  const { signal, log } = options;
  try {
    await removeVenv(venv, options);
  } catch (error) {
    if (signal.aborted || isReceiverError(error, 'LOCK_TIMEOUT')) return;
    const { directory } = venv.place;
    log.warn({ directory, err: error }, 'unused release removal failed');
  }
}

/** All environments, in no particular order. Throws system errors. */
export async function findVenvs({
  venvsDir,
  locksDir,
  timing,
}: Pick<SweepOptions, 'venvsDir' | 'locksDir' | 'timing'>): Promise<FoundVenv[]> {
  const found: FoundVenv[] = [];
  for (const name of await namesIn(venvsDir)) {
    if (!(await lstat(join(venvsDir, name)).catch(nullIfMissing))?.isDirectory()) continue;
    const place = placeOf({ venvsDir, locksDir, name });
    const isUsed = await isInUse(place, timing);
    const ready = await readyIn(place);
    found.push({ name, place, ready, usedAt: ready === null ? null : await lastUse(place), isInUse: isUsed });
  }
  return found;
}

/**
 * Removes an environment under its lock; false if it is in use, or was used or installed since it was found. Throws
 * CANCELLED, LOCK_TIMEOUT, STORAGE and system errors.
 */
export async function removeVenv(
  { place, usedAt }: Pick<FoundVenv, 'place' | 'usedAt'>,
  { timing, waitMs, signal, log }: Pick<SweepOptions, 'timing' | 'waitMs' | 'log'> & { signal?: AbortSignal },
): Promise<boolean> {
  const reason = 'removing an unused ESPHome';
  const lease = await acquireAt(place.lockDir, { reason, deadlineMs: waitMs, signal, timing, log });
  try {
    const now = (await readyIn(place)) === null ? null : await lastUse(place);
    if (now !== usedAt || !(await removeUnused(place, lease, timing))) return false;
    log.info({ directory: place.directory }, 'unused release removed');
    return true;
  } finally {
    await lease.release();
  }
}
