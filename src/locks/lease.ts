/**
 * The complete lock on one directory. Two compilers in one build directory produce firmware that is wrong and reported
 * as success (seen with ESPHome 2026.10), so whatever compiles, replaces or deletes there holds its lease. A lease is
 * acquired in this order, and released in reverse:
 *
 * 1. a place in the line of this process (fifo.ts), then among processes (ticket-queue.ts);
 * 2. the lock on disk (file-lock.ts, through guarded-fs.ts), which excludes others while its heartbeat runs;
 * 3. a number higher than all before (fence.ts);
 * 4. the end of any build that an older owner left running, and a record of the new owner (owner-record.ts).
 *
 * Guaranteed to a holder that calls `recordBuild` before its build begins (`beforeStart` of a session) and `release`
 * after it has ended: no other holder's build runs at the same time, through crashes, kills, and processes that are
 * suspended for any time at any point. The lock alone cannot guarantee that; steps 3 and 4 do. A lease can be lost: its
 * signal aborts, and the holder then ends its build and releases.
 */
import { renameSync } from 'node:fs';
import { join } from 'node:path';

import { isThere } from '../disk/open-regular.js';
import { removeTree } from '../disk/remove.js';
import { temporaryName } from '../disk/names.js';
import { isReceiverError, ReceiverError, storageError } from '../errors.js';
import type { Log } from '../log.js';
import type { RemoteKey } from '../paths/configuration.js';
import { hashName } from '../paths/segments.js';
import { identify } from '../process/identity.js';
import { type SessionIdentity, endSession } from '../process/stop.js';
import { openFence } from './fence.js';
import { enterLine, type LinePlace, type LineRequest } from './fifo.js';
import { endPredecessors, removeRecord, writeRecord, type OwnerRecord } from './owner-record.js';
import { waitForFileLock } from './ticket-queue.js';

export interface LockTiming {
  /** A lock without a heartbeat for this long is free. At least 2000. */
  readonly staleMs: number;
  /** Time between heartbeats. At least 1000, at most half of `staleMs`. */
  readonly updateMs: number;
}

export interface AcquireOptions {
  /** Shown to waiters for this lease. */
  readonly reason: string;
  /** Ends the wait with CANCELLED. */
  readonly signal?: AbortSignal | undefined;
  /** The longest wait, in ms. Default: no limit. */
  readonly deadlineMs?: number | undefined;
  readonly log: Log;
  /** Called if there is a wait, with the reason of the current holder where it is known. Must not throw. */
  readonly onBlocked?: ((holder: LineRequest) => void) | undefined;
  readonly timing: LockTiming;
}

export interface Lease {
  /** Aborts with LOCK_LOST when another owner has the lock. */
  readonly signal: AbortSignal;
  /** Higher than that of every earlier lease. */
  readonly fence: number;
  /**
   * Records the build that is about to begin under this lease, or null after it has ended. When it rejects, the build
   * must not begin: FENCED when there is a newer owner, LOCK_LOST when the loss was known before. Do not call it
   * concurrently.
   */
  recordBuild(build: SessionIdentity | null): Promise<void>;
  /**
   * Checks on disk that this lease still holds; throws as `recordBuild` does. Use it before replacing something, and
   * to distinguish a compiler that failed from one that a successor stopped.
   */
  confirm(): Promise<void>;
  /** Runs `act` as the fence's `publish` does: throws FENCED under an old lease. */
  publish<T>(act: () => Promise<T>): Promise<T>;
  /** Ends a recorded build that still runs, then admits the next holder. Idempotent, never rejects. */
  release(): Promise<void>;
}

/**
 * Waits for the lock on `directory`, which is created if missing and has no other content. Throws CANCELLED,
 * LOCK_TIMEOUT, and STORAGE when the directory cannot be used.
 */
export async function acquireAt(directory: string, options: AcquireOptions): Promise<Lease> {
  const { reason, signal, deadlineMs = Infinity, onBlocked } = options;
  const until = performance.now() + deadlineMs;
  const place = await enterLine(directory, { reason, signal, until, onBlocked });
  try {
    for (;;) {
      const lease = await usable(directory, () => acquireOnce(directory, place, until, options));
      if (lease) return lease;
    }
  } catch (error) {
    place.leave();
    throw error;
  }
}

/** Null when the lock was lost during the acquisition. */
async function acquireOnce(
  directory: string,
  place: LinePlace,
  until: number,
  options: AcquireOptions,
): Promise<Lease | null> {
  const { reason, signal, log, timing } = options;
  const loss = new AbortController();
  let releasing: Promise<void> | undefined;
  const lose = (cause?: unknown): void => {
    if (releasing) return;
    loss.abort(lost(directory, cause));
  };

  const lock = await waitForFileLock(directory, { ...options, until, timing, onLost: lose });
  const fence = openFence(directory);
  let record: OwnerRecord;
  try {
    // After a suspension, taking a number would fence off the successor.
    if (!lock.isHeld()) throw lost(directory);
    const number = fence.next();
    const owner = identify(process.pid) ?? { pid: process.pid, startTime: 0, bootId: '' };
    record = { fence: number, owner, build: null, reason, since: Date.now() };
    await endPredecessors(directory, number, { signal, until, foreignMs: timing.staleMs, log });
    await fence.publish(number, async () => writeRecord(directory, record));
    loss.signal.throwIfAborted();
  } catch (error) {
    await lock.release().catch(() => {});
    if (isReceiverError(error, 'FENCED') || isReceiverError(error, 'LOCK_LOST')) return null;
    throw error;
  }

  async function publish<T>(act: () => Promise<T>): Promise<T> {
    if (releasing) throw new ReceiverError('STATE', 'the lease has been released');
    loss.signal.throwIfAborted();
    try {
      return await fence.publish(record.fence, act);
    } catch (error) {
      if (isReceiverError(error, 'FENCED')) lose(error);
      throw error;
    }
  }

  async function release(): Promise<void> {
    try {
      const survivors = record.build ? (await endSession(record.build)).survivors : 0;
      // With survivors the record stays: the next owner must end them first.
      if (survivors > 0) log.error({ directory, survivors }, 'lock released before its build had ended');
      else removeRecord(directory, record.fence);
    } catch (error) {
      log.warn({ directory, err: error }, 'owner record of a lock not removed, its next owner removes it');
    }
    // Whatever failed before, the heartbeat must end, or the directory stays locked as long as this process lives.
    await lock.release().catch((error: unknown) => {
      log.warn({ directory, err: error }, 'lock release failed, it expires when stale');
    });
    place.leave();
  }

  return {
    signal: loss.signal,
    fence: record.fence,
    publish,
    confirm: () => publish(async () => {}),
    recordBuild: (build) =>
      usable(directory, () =>
        publish(async () => {
          record = { ...record, build };
          writeRecord(directory, record);
        }),
      ),
    release() {
      releasing ??= release();
      return releasing;
    },
  };
}

function lost(directory: string, cause?: unknown): ReceiverError {
  return new ReceiverError('LOCK_LOST', 'the lock has a new owner', { directory }, { cause });
}

/** Turns system errors, whose messages contain host paths, into STORAGE. */
export async function usable<T>(directory: string, act: () => Promise<T>): Promise<T> {
  try {
    return await act();
  } catch (error) {
    throw storageError('a lock cannot be used', error, { directory });
  }
}

export interface LeaseOptions extends AcquireOptions {
  /** Absolute. Contains one small directory for each key. */
  readonly locksDir: string;
  readonly key: Pick<RemoteKey, 'dashboardId' | 'device'>;
}

/** Waits for the lease of a build directory. Throws CANCELLED, LOCK_TIMEOUT, STORAGE. */
export function acquireLease({ locksDir, key, ...options }: LeaseOptions): Promise<Lease> {
  return acquireAt(directoryOf(locksDir, key), options);
}

function directoryOf(locksDir: string, { dashboardId, device }: LeaseOptions['key']): string {
  return join(locksDir, hashName('subtree', dashboardId, device));
}

/**
 * Removes the lock of a device that is gone, unless it is in use. The next owner makes a new one, with a higher number.
 * Never rejects.
 */
export async function forgetLease(
  options: Pick<LeaseOptions, 'locksDir' | 'key' | 'timing' | 'log'>,
): Promise<void> {
  const { locksDir, key, log } = options;
  const directory = directoryOf(locksDir, key);
  const aside = join(locksDir, temporaryName());
  try {
    if (!(await isThere(directory))) return;
    const lease = await acquireLease({ ...options, reason: 'removing the lock', deadlineMs: 0 });
    try {
      await lease.confirm();
      // Synchronous, so that others find no lock and make a new one.
      openFence(directory).retire();
      renameSync(directory, aside);
      // Another owner came while this process was suspended.
      if (openFence(aside).newest() !== lease.fence) renameSync(aside, directory);
    } finally {
      await lease.release();
    }
    await removeTree(aside);
  } catch (error) {
    log.debug({ directory, err: error }, 'unused lock not removed');
  }
}
