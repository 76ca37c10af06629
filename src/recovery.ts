/**
 * Cleans up after killed receivers: staging, trash and temporary files, bundles of ended jobs, surviving builds,
 * interrupted swaps, and results of unknown jobs. Without it each crash would leave up to 500 MiB of a user's
 * configuration on the disk, including its secrets. It runs concurrently with everything else, and touches nothing that
 * another living receiver on the same disk uses.
 */
import { join } from 'node:path';

import { createArtifactStore } from './artifacts/store.js';
import { isInstallCut, repairInstall } from './bundles/install.js';
import { namesIn } from './disk/names.js';
import { removeTree } from './disk/remove.js';
import { makerOf, standingOf } from './disk/names.js';
import { isReceiverError } from './errors.js';
import { devicesOnDisk } from './jobs/devices-on-disk.js';
import { idsOnDisk, isLiveOnDisk } from './jobs/disk-store.js';
import { type LockTiming, acquireLease, acquireAt } from './locks/lease.js';
import { readHolder } from './locks/owner-record.js';
import { presenceDirOf, showPresence, findSilent } from './locks/presence.js';
import type { Log } from './log.js';
import type { Layout, RemoteKey } from './paths/index.js';
import { isAlive } from './process/identity.js';

export interface RecoveryOptions {
  /** Its directories must exist. */
  readonly layout: Layout;
  readonly stateDir: string;
  /** The same for all receivers of one builds directory. */
  readonly timing: LockTiming;
  /** The ids of this receiver's jobs at the moment of the call. */
  readonly jobIds: () => readonly string[];
  readonly log: Log;
}

export type Recovery = Awaited<ReturnType<typeof startRecovery>>;

/**
 * Starts the cleanup, and shows this receiver to others until it is closed. Leftovers of a dead process in this
 * container are removed at once; its locks, and possible leftovers of other containers, take up to three times the
 * stale time of a lock. Throws system errors.
 */
export async function startRecovery(options: RecoveryOptions) {
  const { layout, timing, log } = options;
  const presence = await showPresence(presenceDirOf(layout.locksDir), timing.updateMs);
  const stopping = new AbortController();
  const { signal } = stopping;
  const tasks = [
    removeLeftovers(options, signal),
    sweepArtifacts(options),
    repairSwaps(options, signal),
    endOrphanedBuilds(options, signal),
  ];
  const done = settled(tasks, signal, log);
  return {
    /** Resolves when the cleanup is complete. Never rejects: failures are logged. */
    done,
    /** Stops the cleanup and hides this receiver from others. Never rejects. */
    async close(): Promise<void> {
      stopping.abort();
      await done;
      await presence.leave();
    },
  };
}

async function settled(tasks: readonly Promise<void>[], signal: AbortSignal, log: Log): Promise<void> {
  for (const result of await Promise.allSettled(tasks)) {
    if (result.status === 'fulfilled' || signal.aborted) continue;
    log.warn({ err: result.reason }, 'crash cleanup failed');
  }
}

/** Checks twice, because one read of the directory can miss a job that another receiver is taking over. */
async function isBundleNeeded(name: string, { layout: { jobsDir }, log }: RecoveryOptions): Promise<boolean> {
  return (await isLiveOnDisk(jobsDir, name, log)) || (await isLiveOnDisk(jobsDir, name, log));
}

/** All records on disk count, because other receivers can share the directory. */
async function sweepArtifacts({ layout, jobIds }: RecoveryOptions): Promise<void> {
  const known = async (): Promise<ReadonlySet<string>> =>
    new Set([...(await idsOnDisk(layout.jobsDir)), ...jobIds()]);
  await createArtifactStore(layout.artifactsDir).sweep(known);
}

async function repairSwaps(options: RecoveryOptions, signal: AbortSignal): Promise<void> {
  const { layout } = options;
  const cut: RemoteKey[] = [];
  const { keys } = await devicesOnDisk(layout.buildsDir);
  for (const key of keys) if (await isInstallCut({ layout, key })) cut.push(key);
  await Promise.all(cut.map((key) => repair(key, options, signal)));
}

/** A living owner completes its own swap. */
async function repair(
  key: RemoteKey,
  { layout, timing, log }: RecoveryOptions,
  signal: AbortSignal,
): Promise<void> {
  const { locksDir } = layout;
  const request = { key, reason: 'repairing an interrupted installation', deadlineMs: 3 * timing.staleMs };
  try {
    const lease = await acquireLease({ ...request, locksDir, signal, timing, log });
    try {
      await lease.publish(() => repairInstall({ layout, key, log }));
    } finally {
      await lease.release();
    }
  } catch (error) {
    if (signal.aborted || isReceiverError(error, 'LOCK_TIMEOUT')) return;
    log.warn({ ...key, err: error }, 'interrupted installation not repaired, the next job tries again');
  }
}

const lockShape = /^[0-9a-f]{40}$/;

/**
 * Ends the builds that dead receivers left running, and frees their locks, without waiting for the next job of that
 * device: an orphaned compiler occupies a core for half an hour. Acquires each such lock once, as a job would, so the
 * guarantees of a lease hold here too; locks of living owners are left alone. Takes up to three times the stale time of
 * a lock. The signal stops the waits, but not the end of builds that has already begun. Throws system errors of reading
 * the directory of the locks.
 */
async function endOrphanedBuilds(options: RecoveryOptions, signal: AbortSignal): Promise<void> {
  const directories = await lockDirectories(options.layout.locksDir);
  await Promise.all(directories.map((directory) => freeLock(directory, options, signal)));
}

async function lockDirectories(locksDir: string): Promise<readonly string[]> {
  const names = (await namesIn(locksDir)).filter((name) => lockShape.test(name));
  return names.map((name) => join(locksDir, name));
}

async function freeLock(
  directory: string,
  { timing, log }: RecoveryOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    if (!(await isLeft(directory))) return;
    const reason = 'cleaning up after a crash';
    const deadlineMs = 3 * timing.staleMs;
    const lease = await acquireAt(directory, { reason, signal, deadlineMs, timing, log });
    await lease.release();
  } catch (error) {
    if (signal.aborted) return;
    if (isReceiverError(error, 'LOCK_TIMEOUT'))
      log.debug({ directory }, 'lock check skipped: the lock is held');
    else log.warn({ directory, err: error }, 'lock of a crashed process not freed');
  }
}

/** Whether there is a lock or a record whose owner does not run here. It can still run elsewhere. */
async function isLeft(directory: string): Promise<boolean> {
  const names = await namesIn(directory);
  if (!names.some((name) => name === 'lock' || name.startsWith('owner-'))) return false;
  const holder = readHolder(directory);
  return holder === null || !isAlive(holder.owner);
}

interface LockEntry {
  readonly name: string;
  readonly path: string;
  readonly maker: string | null;
}

/**
 * Removes leftovers of dead processes: staging, trash, half-written files. Each name contains its process; in the
 * directories where everything is temporary, an entry without one stays while its job needs it. Files of living
 * processes, also of other receivers, are not touched. Takes no longer than the stale time of a lock and the removals.
 * Throws the signal's reason and system errors.
 */
async function removeLeftovers(options: RecoveryOptions, signal: AbortSignal): Promise<void> {
  const { layout, stateDir, timing, log } = options;
  const { uploadsDir, trashDir, jobsDir, devicesDir, ownersDir, artifactsDir, toolchainsDir, locksDir } =
    layout;
  const presenceDir = presenceDirOf(locksDir);
  const mixed = [
    jobsDir,
    devicesDir,
    ownersDir,
    artifactsDir,
    toolchainsDir,
    presenceDir,
    stateDir,
    locksDir,
  ];
  const inMixed = await entriesOf([...mixed, ...(await lockDirectories(locksDir))]);
  const unknown: LockEntry[] = [];
  for (const entry of [
    ...(await entriesOf([uploadsDir, trashDir])),
    ...inMixed.filter(({ maker }) => maker !== null),
  ]) {
    const standing = entry.maker === null ? 'gone' : standingOf(entry.maker);
    if (standing === 'gone' && !(entry.maker === null && (await isBundleNeeded(entry.name, options)))) {
      await remove(entry, signal, log);
    }
    if (standing === 'unknown') unknown.push(entry);
  }
  if (unknown.length === 0) return;
  const makers = new Set(unknown.map(({ maker }) => maker ?? ''));
  const silent = await findSilent(presenceDir, makers, { watchMs: timing.staleMs, signal });
  for (const entry of unknown) if (silent.has(entry.maker ?? '')) await remove(entry, signal, log);
}

async function entriesOf(directories: readonly string[]): Promise<LockEntry[]> {
  const entries: LockEntry[] = [];
  for (const directory of directories) {
    const names = await namesIn(directory);
    entries.push(...names.map((name) => ({ name, path: join(directory, name), maker: makerOf(name) })));
  }
  return entries;
}

async function remove({ path }: LockEntry, signal: AbortSignal, log: Log): Promise<void> {
  signal.throwIfAborted();
  try {
    await removeTree(path);
    log.info({ path }, 'removed files left by a crashed process');
  } catch (error) {
    log.warn({ path, err: error }, 'files left by a crashed process not removed');
  }
}
