/**
 * Ends the builds that receivers have left running which are gone, and frees their locks, without waiting for the
 * next job of that device: a compiler that nobody waits for takes a core for half an hour.
 *
 * It takes each such lock once, as a job would, so all that a lease promises holds here too. What a living owner
 * holds is left alone.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { isReceiverError, messageOf } from '../errors.js';
import type { Log } from '../log.js';
import { isAlive } from '../process/identity.js';
import { acquireAt, type LockTiming } from './lease.js';
import { readHolder } from './owner-record.js';

export interface LeftBuildsOptions {
  readonly locksDir: string;
  readonly timing: LockTiming;
  /** Ends the waits; builds that are being ended are still ended. */
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** As {@link lockName} makes them. */
const lockShape = /^[0-9a-f]{40}$/;

/** Takes up to three times the stale time of a lock. Throws system errors of the look into `locksDir`. */
export async function endLeftBuilds({ locksDir, ...options }: LeftBuildsOptions): Promise<void> {
  await Promise.all((await lockDirectories(locksDir)).map((directory) => settle(directory, options)));
}

/** The directories of all locks that there ever were. Throws system errors. */
export async function lockDirectories(locksDir: string): Promise<readonly string[]> {
  const names = (await readdir(locksDir)).filter((name) => lockShape.test(name));
  return names.map((name) => join(locksDir, name));
}

async function settle(directory: string, options: Omit<LeftBuildsOptions, 'locksDir'>): Promise<void> {
  const { timing, signal, log } = options;
  try {
    if (!(await isLeft(directory))) return;
    const reason = 'ending what a crash has left';
    const deadlineMs = 3 * timing.staleMs;
    const lease = await acquireAt(directory, { reason, signal, deadlineMs, timing, log });
    await lease.release();
  } catch (error) {
    if (signal.aborted) return;
    if (isReceiverError(error, 'LOCK_TIMEOUT')) log.debug({ directory }, 'a lock is held by somebody else');
    else log.warn({ directory, error: messageOf(error) }, 'a lock of an earlier receiver cannot be freed');
  }
}

/** Whether somebody has left a lock or a record who does not run here. He may still live elsewhere. */
async function isLeft(directory: string): Promise<boolean> {
  const names = await readdir(directory);
  if (!names.some((name) => name === 'lock' || name.startsWith('owner-'))) return false;
  const holder = readHolder(directory);
  return holder === null || !isAlive(holder.owner);
}
