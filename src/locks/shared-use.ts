/**
 * Who uses a thing that many share, and the moment at which nobody does. Whoever takes a toolchain away must know of every
 * build that works with it. The gates (toolchain-gate.ts) cannot say: a build that installs is in a gate that nobody else knows of,
 * one whose tools are being renewed is in a gate without a mark, and a build for the host is in none.
 *
 * A user shows itself and then looks for the lock; who takes the thing away has the lock and then looks for users. So
 * one of the two always sees the other.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../errors.js';
import { acquireAt, defaultTiming, usable, type AcquireOptions, type Lease } from './lease.js';
import { lockName } from './subtree-lease.js';
import { addUser, awaitNoUsers, hasUsers, type ToolUser } from './toolchain-users.js';

export interface SharedOptions extends AcquireOptions {
  /** Absolute: where locks are. */
  readonly locksDir: string;
}

/**
 * Shows that somebody uses these things, and waits for one that is being taken away at this moment. Throws CANCELLED,
 * LOCK_TIMEOUT, STORAGE; then it shows nothing.
 */
export async function showUse(names: readonly string[], options: SharedOptions): Promise<ToolUser> {
  const users: ToolUser[] = [];
  async function leave(): Promise<void> {
    for (const user of users.toReversed()) await user.leave();
  }
  try {
    // In one order for all, so that no two who wait at different ones wait for each other.
    for (const name of [...new Set(names)].toSorted()) {
      users.push(await show(directoryOf(options.locksDir, name), options));
    }
  } catch (error) {
    await leave();
    throw error;
  }
  return {
    async recordBuild(build) {
      for (const user of users) await user.recordBuild(build);
    },
    leave,
  };
}

async function show(directory: string, options: SharedOptions): Promise<ToolUser> {
  const { timing = defaultTiming } = options;
  return usable(directory, async () => {
    const user = await addUser(directory, timing);
    if (!(await isLocked(directory))) return user;
    await user.leave();
    const lease = await acquireAt(directory, options);
    try {
      return await addUser(directory, timing);
    } finally {
      await lease.release();
    }
  });
}

/** Does something while nobody uses the thing and nobody can begin to. Throws CANCELLED, LOCK_TIMEOUT, STORAGE. */
export async function whileUnused<T>(
  name: string,
  options: SharedOptions,
  work: (lease: Lease) => Promise<T>,
): Promise<T> {
  const { locksDir, signal, deadlineMs = Infinity, timing = defaultTiming } = options;
  const directory = directoryOf(locksDir, name);
  const until = performance.now() + deadlineMs;
  const lease = await acquireAt(directory, options);
  try {
    await usable(directory, () => awaitNoUsers(directory, timing, { until, signal }));
    return await work(lease);
  } finally {
    await lease.release();
  }
}

/** Whether somebody uses it now. Throws system errors. */
export async function isUsed(
  name: string,
  { locksDir, timing = defaultTiming }: Pick<SharedOptions, 'locksDir' | 'timing'>,
): Promise<boolean> {
  try {
    return await hasUsers(directoryOf(locksDir, name), timing.staleMs);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/** As file-lock.ts makes it. One that a crash has left counts, and is waited for until it goes stale. */
async function isLocked(directory: string): Promise<boolean> {
  return (await readdir(directory)).includes('lock');
}

function directoryOf(locksDir: string, name: string): string {
  return join(locksDir, lockName('shared', name));
}
