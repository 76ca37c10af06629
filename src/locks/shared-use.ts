/**
 * Tracks the users of a shared resource, so that it is replaced or removed only while it has none. The remover of a
 * toolchain must know every build that uses it, and the gates (toolchains/gate.ts) do not know all of them.
 *
 * A user is one small file beside the lock of the resource. It shows itself and then checks the lock; a remover takes
 * the lock and then checks for users. So one of the two always sees the other. A dead user does not count, but the
 * build that it left is ended first: it would read tools while they are replaced.
 */
import { randomUUID } from 'node:crypto';
import { readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { runOnce } from '../async/calls.js';
import { makeDirectory } from '../disk/atomic-write.js';
import { readJsonFile } from '../disk/json-file.js';
import { temporaryName } from '../disk/names.js';
import { systemCode } from '../errors.js';
import { identify, isAlive, isOfThisBoot } from '../process/identity.js';
import { type SessionIdentity, endSession } from '../process/stop.js';
import { cancelled, timedOut } from './fifo.js';
import { acquireAt, usable, type AcquireOptions, type Lease, type LockTiming } from './lease.js';
import { userFormat } from './owner-record.js';
import { hashName } from '../paths/segments.js';

export interface SharedOptions extends AcquireOptions {
  /** Absolute. */
  readonly locksDir: string;
}

/**
 * Registers a user of these resources, and waits for any that is being removed. Throws CANCELLED, LOCK_TIMEOUT,
 * STORAGE; then nothing stays registered.
 */
export async function showUse(names: readonly string[], options: SharedOptions): Promise<ToolUser> {
  const users: ToolUser[] = [];
  async function leave(): Promise<void> {
    const left = await Promise.allSettled(users.toReversed().map((user) => user.leave()));
    for (const result of left) if (result.status === 'rejected') throw result.reason;
  }
  try {
    // In one order for all callers, so that no two wait for each other.
    for (const name of [...new Set(names)].toSorted()) {
      users.push(await showOne(directoryOf(options.locksDir, name), options));
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

async function showOne(directory: string, options: SharedOptions): Promise<ToolUser> {
  const { timing } = options;
  return usable(directory, async () => {
    const user = await addUser(directory, timing);
    let isLocked = true;
    try {
      // The lock of file-lock.ts; one left by a crash counts until it goes stale.
      isLocked = (await readdir(directory)).includes('lock');
    } finally {
      if (isLocked) await user.leave();
    }
    if (!isLocked) return user;
    const lease = await acquireAt(directory, options);
    try {
      return await addUser(directory, timing);
    } finally {
      await lease.release();
    }
  });
}

/** Runs `work` while the resource has no users and can get none. Throws CANCELLED, LOCK_TIMEOUT, STORAGE. */
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

/** The only user of some resources: until it leaves, nobody else uses or removes them. */
export interface SoleUser extends Pick<Lease, 'signal' | 'recordBuild'> {
  /** Runs `act` as {@link Lease.publish} of each resource does. */
  publish<T>(act: () => Promise<T>): Promise<T>;
  /** Idempotent, never rejects. */
  leave(): Promise<void>;
}

/**
 * Waits until these resources have no users, and keeps new ones out, for a caller that changes what users read. Throws
 * CANCELLED, LOCK_TIMEOUT, STORAGE; then it holds none of them.
 */
export async function useAlone(names: readonly string[], options: SharedOptions): Promise<SoleUser> {
  const { locksDir, signal, deadlineMs = Infinity, timing, onBlocked, log } = options;
  const until = performance.now() + deadlineMs;
  const leases: Lease[] = [];
  const users: ToolUser[] = [];
  async function leave(): Promise<void> {
    for (const user of users)
      await user.leave().catch((error: unknown) => log.warn({ err: error }, 'tool use marker not removed'));
    for (const lease of leases.toReversed()) await lease.release();
  }
  try {
    // In one order for all callers, so that no two wait for each other.
    for (const name of [...new Set(names)].toSorted()) {
      const directory = directoryOf(locksDir, name);
      leases.push(await acquireAt(directory, { ...options, deadlineMs: until - performance.now() }));
      await usable(directory, async () => {
        await awaitNoUsers(directory, timing, { until, signal, onBlocked });
        users.push(await addUser(directory, timing));
      });
    }
  } catch (error) {
    await leave();
    throw error;
  }
  return {
    signal: AbortSignal.any(leases.map((lease) => lease.signal)),
    async recordBuild(build) {
      for (const lease of leases) await lease.recordBuild(build);
    },
    publish: (act) => leases.reduceRight((inner, lease) => () => lease.publish(inner), act)(),
    leave: runOnce(leave),
  };
}

/** Whether the resource has users now. Throws system errors. */
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

function directoryOf(locksDir: string, name: string): string {
  return join(locksDir, hashName('shared', name));
}

export interface ToolUser {
  /** Records the build that is about to begin, or null after it has ended. */
  recordBuild(build: SessionIdentity | null): Promise<void>;
  /**
   * Ends a recorded build that still runs, and removes the file unless the build cannot be ended. Throws system errors; the
   * removal is then tried again until it succeeds.
   */
  leave(): Promise<void>;
}

const pattern = /^user-[0-9a-f-]{36}\.json$/;
const pauseMs = 100;

/** Adds a user of the tools whose lock has this directory. Throws system errors. */
export async function addUser(directory: string, { updateMs }: LockTiming): Promise<ToolUser> {
  await makeDirectory(directory);
  const file = join(directory, `user-${randomUUID()}.json`);
  const owner = identify(process.pid) ?? { pid: process.pid, startTime: 0, bootId: '' };
  let build: SessionIdentity | null = null;
  const write = async (): Promise<void> => {
    // Not `writeAtomic`: after a power cut no user is left, so nothing has to be durable.
    const temporary = `${file}.${temporaryName()}`;
    try {
      await writeFile(temporary, JSON.stringify({ owner, build }), { mode: 0o600 });
      await rename(temporary, file);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => {});
      throw error;
    }
  };
  await write();
  // For other containers or machines, which cannot see this process.
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
      if (survivors > 0) return;
      await rm(file, { force: true }).catch((error: unknown) => {
        void removeLater(file);
        throw error;
      });
    },
  };
}

const retryMs = 1_000;

/** As long as this process lives, its file counts as a user. */
async function removeLater(file: string): Promise<void> {
  for (let isGone = false; !isGone;) {
    await sleep(retryMs, undefined, { ref: false });
    isGone = await rm(file, { force: true }).then(
      () => true,
      () => false,
    );
  }
}

/** Resolves when the tools have no users. Throws CANCELLED, LOCK_TIMEOUT and system errors. */
export async function awaitNoUsers(
  directory: string,
  { staleMs }: LockTiming,
  { until, signal, onBlocked }: Pick<AcquireOptions, 'signal' | 'onBlocked'> & { readonly until: number },
): Promise<void> {
  if (await hasUsers(directory, staleMs)) onBlocked?.({ reason: 'the tools are in use' });
  while (await hasUsers(directory, staleMs)) {
    if (signal?.aborted) throw cancelled();
    if (performance.now() >= until) throw timedOut({ reason: 'the tools are in use' });
    await sleep(pauseMs);
  }
}

/** Also removes the files of dead users. Throws system errors. */
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
  // Null for a file that is gone, or that a power cut left empty.
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
