/**
 * Who uses a thing that many share, and the moment at which nobody does. Whoever takes a toolchain away must know of every
 * build that works with it. The gates (toolchain-gate.ts) cannot say: a build that installs is in a gate that nobody else knows of,
 * one whose tools are being renewed is in a gate without a mark, and a build for the host is in none.
 *
 * A user shows itself and then looks for the lock; who takes the thing away has the lock and then looks for users. So
 * one of the two always sees the other.
 */
import { randomUUID } from 'node:crypto';
import { readdir, mkdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { readJsonFile } from '../disk/json-file.js';
import { systemCode } from '../errors.js';
import { identify, isAlive, isOfThisBoot, type ProcessIdentity } from '../process/identity.js';
import { type SessionIdentity, endSession } from '../process/stop.js';
import { cancelled, timedOut } from './fifo.js';
import { acquireAt, usable, type AcquireOptions, type Lease, type LockTiming } from './lease.js';
import { userFormat } from './owner-record.js';
import { hashName } from '../paths/segments.js';

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
  const { timing } = options;
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
  const { locksDir, signal, deadlineMs = Infinity, timing } = options;
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
  { locksDir, timing }: Pick<SharedOptions, 'locksDir' | 'timing'>,
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
  return join(locksDir, hashName('shared', name));
}

/**
 * The builds that share a set of tools at this moment: one small file each, beside the lock of those tools. Who
 * wants to replace the tools waits until none is left. A user that has died does not count, but the build that it
 * left is ended first: it would read tools that are being replaced under it.
 */
export interface ToolUser {
  /** Writes down the build that is about to begin, or null after it has ended. */
  recordBuild(build: SessionIdentity | null): Promise<void>;
  /** Ends a recorded build that still runs, and takes the file away unless the build cannot be ended. */
  leave(): Promise<void>;
}

interface UserFile {
  readonly owner: ProcessIdentity;
  readonly build: SessionIdentity | null;
}

const pattern = /^user-[0-9a-f-]{36}\.json$/;
const pauseMs = 100;

/** Adds a user of the tools whose lock has this directory. Throws system errors. */
export async function addUser(directory: string, { updateMs }: LockTiming): Promise<ToolUser> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const file = join(directory, `user-${randomUUID()}.json`);
  const owner = identify(process.pid) ?? { pid: process.pid, startTime: 0, bootId: '' };
  let build: SessionIdentity | null = null;
  const write = async (): Promise<void> => {
    await writeFile(`${file}.new`, JSON.stringify({ owner, build } satisfies UserFile), { mode: 0o600 });
    await rename(`${file}.new`, file);
  };
  await write();
  // For those who cannot see this process: another container or machine.
  const heartbeat = setInterval(() => {
    const now = new Date();
    void utimes(file, now, now).catch(() => {});
  }, updateMs);
  heartbeat.unref();
  return {
    async recordBuild(next) {
      build = next;
      await write();
    },
    async leave() {
      clearInterval(heartbeat);
      const survivors = build ? (await endSession(build)).survivors : 0;
      if (survivors === 0) await rm(file, { force: true });
    },
  };
}

/** Resolves when nobody uses the tools. Throws CANCELLED, LOCK_TIMEOUT and system errors. */
export async function awaitNoUsers(
  directory: string,
  { staleMs }: LockTiming,
  { until, signal }: { readonly until: number; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  while (await hasUsers(directory, staleMs)) {
    if (signal?.aborted) throw cancelled();
    if (performance.now() >= until) throw timedOut({ reason: 'the tools are in use' });
    await sleep(pauseMs);
  }
}

/** Whether somebody uses the tools now. Throws system errors. */
export async function hasUsers(directory: string, staleMs: number): Promise<boolean> {
  for (const name of await readdir(directory)) {
    if (!pattern.test(name)) continue;
    const file = join(directory, name);
    if (await isInUse(file, staleMs)) return true;
    await rm(file, { force: true });
  }
  return false;
}

async function isInUse(file: string, staleMs: number): Promise<boolean> {
  // Null for a file that has gone, or that a power cut has left without content.
  const user = await readJsonFile(file, userFormat).catch(() => null);
  if (!user) return false;
  if (!isOfThisBoot(user.owner))
    return stat(file).then(
      ({ mtimeMs }) => Math.abs(Date.now() - mtimeMs) < staleMs,
      () => false,
    );
  if (isAlive(user.owner)) return true;
  return user.build !== null && (await endSession(user.build)).survivors > 0;
}
