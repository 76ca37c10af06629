/**
 * Tidies up after receivers that were killed: their staging, trash and temporary files, bundles of jobs that have ended,
 * surviving builds, swaps that were cut short, and results of jobs that nobody knows. Without it each crash would leave up to 500 MiB of somebody's
 * configuration on the disk, with the secrets in it.
 *
 * It runs beside everything else, and takes nothing from another receiver that lives on the same disk.
 */
import { createArtifactStore } from '../artifacts/store.js';
import { isSwapCut, repairSwap } from '../bundles/swap.js';
import { isReceiverError, messageOf } from '../errors.js';
import type { LockTiming } from '../locks/lease.js';
import { endLeftBuilds, lockDirectories } from '../locks/left-builds.js';
import { removeLeftovers } from '../locks/leftovers.js';
import { presenceDirOf, showPresence } from '../locks/presence.js';
import { acquireLease } from '../locks/subtree-lease.js';
import type { Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import { devicesOnDisk } from './devices-on-disk.js';
import { idsOnDisk, isLiveOnDisk } from './disk-store.js';

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
    endLeftBuilds({ locksDir, timing, signal, log }),
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
    log.warn({ error: messageOf(result.reason) }, 'what a crash has left cannot be tidied up');
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
  for (const key of keys) if (await isSwapCut({ layout, key })) cut.push(key);
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
      await lease.publish(() => repairSwap({ layout, key, log }));
    } finally {
      await lease.release();
    }
  } catch (error) {
    if (signal.aborted || isReceiverError(error, 'LOCK_TIMEOUT')) return;
    log.warn(
      { ...key, error: messageOf(error) },
      'a configuration cannot be repaired; its next job will try',
    );
  }
}
