/**
 * Tidies up after receivers that were killed: their staging, trash and temporary files, bundles of jobs that have ended,
 * surviving builds, swaps that were cut short, and results of jobs that nobody knows. Without it each crash would leave up to 500 MiB of somebody's
 * configuration on the disk, with the secrets in it.
 *
 * It runs beside everything else, and takes nothing from another receiver that lives on the same disk.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { createArtifactStore } from './artifacts/store.js';
import { isInstallCut, repairInstall } from './bundles/install.js';
import { removeTree } from './disk/remove.js';
import { makerOf, standingOf } from './disk/temporary.js';
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
  /** Where the identity and the peers are kept. */
  readonly stateDir: string;
  /** The same for all receivers of one builds directory. */
  readonly timing: LockTiming;
  /** The ids of this receiver's jobs at the moment of the call. */
  readonly jobIds: () => readonly string[];
  readonly log: Log;
}

export interface Recovery {
  /** Resolves when nothing is left to do. Never rejects: what cannot be tidied up is logged. */
  readonly done: Promise<void>;
  /** Ends it, also half-way, and stops to show this receiver to others. Never rejects. */
  close(): Promise<void>;
}

/**
 * Begins, and shows this receiver to others until it is closed. What a dead process of this container has left goes
 * at once; its locks, and what may be another container's, take up to three times the stale time of a lock. Throws
 * system errors.
 */
export async function startRecovery(options: RecoveryOptions): Promise<Recovery> {
  const { layout, stateDir, timing, log } = options;
  const { uploadsDir, trashDir, jobsDir, devicesDir, ownersDir, artifactsDir, toolchainsDir, locksDir } =
    layout;
  const presenceDir = presenceDirOf(locksDir);
  const presence = await showPresence(presenceDir, timing.updateMs);
  const stopping = new AbortController();
  const { signal } = stopping;
  const tasks = [
    removeLeftovers({
      temporary: [uploadsDir, trashDir],
      mixed: [
        ...[jobsDir, devicesDir, ownersDir, artifactsDir, toolchainsDir, presenceDir, stateDir],
        ...(await lockDirectories(locksDir)),
      ],
      isNeeded: (name) => isBundleNeeded(name, options),
      ...{ presenceDir, watchMs: timing.staleMs, signal, log },
    }),
    sweepArtifacts(options),
    repairSwaps(options, signal),
    endOrphanedBuilds({ locksDir, timing, signal, log }),
  ];
  const done = settled(tasks, signal, log);
  return {
    done,
    async close() {
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

/** Asked twice, for a job that another receiver takes over in this moment can escape a look into its directory. */
async function isBundleNeeded(name: string, { layout: { jobsDir }, log }: RecoveryOptions): Promise<boolean> {
  return (await isLiveOnDisk(jobsDir, name, log)) || (await isLiveOnDisk(jobsDir, name, log));
}

/** Records on disk count, whoever wrote them: other receivers may share the directory. */
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

/** A living owner that is in the middle of a swap ends it itself. */
async function repair(
  key: RemoteKey,
  { layout, timing, log }: RecoveryOptions,
  signal: AbortSignal,
): Promise<void> {
  const { locksDir } = layout;
  const wish = { key, reason: 'repairing what a crash has left', deadlineMs: 3 * timing.staleMs };
  try {
    const lease = await acquireLease({ ...wish, locksDir, signal, timing, log });
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

/**
 * Ends the builds that receivers have left running which are gone, and frees their locks, without waiting for the
 * next job of that device: a compiler that nobody waits for takes a core for half an hour.
 *
 * It takes each such lock once, as a job would, so all that a lease promises holds here too. What a living owner
 * holds is left alone.
 */
export interface OrphanedBuildsOptions {
  readonly locksDir: string;
  readonly timing: LockTiming;
  /** Ends the waits; builds that are being ended are still ended. */
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** As {@link lockName} makes them. */
const lockShape = /^[0-9a-f]{40}$/;

/** Takes up to three times the stale time of a lock. Throws system errors of the look into `locksDir`. */
async function endOrphanedBuilds({ locksDir, ...options }: OrphanedBuildsOptions): Promise<void> {
  await Promise.all((await lockDirectories(locksDir)).map((directory) => settle(directory, options)));
}

/** The directories of all locks that there ever were. Throws system errors. */
async function lockDirectories(locksDir: string): Promise<readonly string[]> {
  const names = (await readdir(locksDir)).filter((name) => lockShape.test(name));
  return names.map((name) => join(locksDir, name));
}

async function settle(directory: string, options: Omit<OrphanedBuildsOptions, 'locksDir'>): Promise<void> {
  const { timing, signal, log } = options;
  try {
    if (!(await isLeft(directory))) return;
    const reason = 'ending what a crash has left';
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

/** Whether somebody has left a lock or a record who does not run here. He may still live elsewhere. */
async function isLeft(directory: string): Promise<boolean> {
  const names = await readdir(directory);
  if (!names.some((name) => name === 'lock' || name.startsWith('owner-'))) return false;
  const holder = readHolder(directory);
  return holder === null || !isAlive(holder.owner);
}

/**
 * Removes what processes have left that are gone: staging, trash, half-written files. Whose it is stands in its name;
 * of what names no process somebody else knows whether it is needed. What a living process uses is not touched, be it the process of another receiver on the same disk.
 */
export interface LeftoverOptions {
  /** Directories in which everything is temporary, unless it is needed. They must exist, as those below. */
  readonly temporary: readonly string[];
  /** Whether what has this name, which is none of a process's, must stay. */
  readonly isNeeded: (name: string) => Promise<boolean>;
  /** Directories that hold temporary files among others. */
  readonly mixed: readonly string[];
  /** Where receivers show that they are at work. */
  readonly presenceDir: string;
  /** How long a receiver whose process cannot be seen may be silent before it counts as gone. */
  readonly watchMs: number;
  readonly signal: AbortSignal;
  readonly log: Log;
}

interface LockEntry {
  readonly name: string;
  readonly path: string;
  readonly maker: string | null;
}

/** Takes no longer than `watchMs` and the removals. Throws the signal's reason and system errors. */
async function removeLeftovers(options: LeftoverOptions): Promise<void> {
  const { temporary, mixed, isNeeded, presenceDir, watchMs, signal } = options;
  const named = (await entriesOf(mixed)).filter(({ maker }) => maker !== null);
  const unknown: LockEntry[] = [];
  for (const entry of [...(await entriesOf(temporary)), ...named]) {
    const standing = entry.maker === null ? 'gone' : standingOf(entry.maker);
    if (standing === 'gone' && !(entry.maker === null && (await isNeeded(entry.name)))) {
      await remove(entry, options);
    }
    if (standing === 'unknown') unknown.push(entry);
  }
  if (unknown.length === 0) return;
  const makers = new Set(unknown.map(({ maker }) => maker ?? ''));
  const silent = await findSilent(presenceDir, makers, { watchMs, signal });
  for (const entry of unknown) if (silent.has(entry.maker ?? '')) await remove(entry, options);
}

async function entriesOf(directories: readonly string[]): Promise<LockEntry[]> {
  const entries: LockEntry[] = [];
  for (const directory of directories) {
    const names = await readdir(directory);
    entries.push(...names.map((name) => ({ name, path: join(directory, name), maker: makerOf(name) })));
  }
  return entries;
}

/** One that cannot be removed does not save the others. */
async function remove({ path }: LockEntry, { signal, log }: LeftoverOptions): Promise<void> {
  signal.throwIfAborted();
  try {
    await removeTree(path);
    log.info({ path }, 'removed files left by a crashed process');
  } catch (error) {
    log.warn({ path, err: error }, 'files left by a crashed process not removed');
  }
}
