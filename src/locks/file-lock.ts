/**
 * Second layer of the lock: proper-lockfile with every option explicit. It excludes other processes while its heartbeat
 * runs, and admits them when the holder has died.
 *
 * Guaranteed: one holder at a time as far as clocks and the file system allow; a crashed holder's lock is free after
 * `staleMs` and at most 2 s; `onLost` is called at most once, never after `release` has begun, and no timer throws (the
 * library's default for a lost lock ends the host's process). Not guaranteed: that a holder that was suspended for
 * longer than `staleMs` knows at once that it has a successor.
 *
 * The library must be loaded at startup, not by the first lock: its `signal-exit` ends the process on a signal that has
 * no other listener, and a host's own `once` listener that was registered earlier is already gone by then.
 */
import type { Stats } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import lockfile from 'proper-lockfile';

import type { Clock } from '../async/clock.js';
import { systemCode } from '../errors.js';
import { guardedFs, type GuardOptions, type LockFs } from './guarded-fs.js';

export interface FileLockOptions {
  /** The age at which a lock counts as abandoned. The library's minimum is 2 s. */
  readonly staleMs: number;
  /** Time between heartbeats, at most half of `staleMs`. The library's minimum is 1 s. */
  readonly updateMs: number;
  readonly onLost: (cause: Error) => void;
  /** See {@link GuardOptions.ageOf}. */
  readonly ageOf?: GuardOptions['ageOf'];
}

export interface FileLock {
  /** Checks now whether the lock is ours, without waiting for the next heartbeat. */
  isHeld(): boolean;
  /**
   * Ends the heartbeat and removes the lock, unless it is lost. Idempotent. Throws system errors; the removal is then tried
   * again until the lock is stale.
   */
  release(): Promise<void>;
}

/**
 * Tries once to lock an absolute, existing directory, by creating `lock` in it. Null when it is already locked. Throws
 * system errors.
 */
export async function tryFileLock(
  directory: string,
  { staleMs, updateMs, onLost, ageOf }: FileLockOptions,
): Promise<FileLock | null> {
  const path = join(directory, 'lock');
  const fs = guardedFs({ staleMs, ageOf });
  let releasing: Promise<void> | undefined;
  let unlock: () => Promise<void>;
  try {
    // The library keys its held locks by the first argument, so that must differ for each lock.
    unlock = await lockfile.lock(directory, {
      lockfilePath: path,
      realpath: false,
      retries: 0,
      stale: staleMs,
      update: updateMs,
      fs,
      onCompromised(cause) {
        if (!releasing) onLost(cause);
      },
    });
  } catch (error) {
    if (systemCode(error) === 'ELOCKED') return null;
    throw error;
  }
  return {
    isHeld: () => fs.isOurs(path),
    release() {
      if (!releasing) fs.end();
      releasing ??= unlock().catch((error: unknown) => {
        if (lostCodes.has(systemCode(error))) return;
        void removeLater(fs, path, staleMs);
        throw error;
      });
      return releasing;
    },
  };
}

const retryMs = 250;

/** A read-only volume can become writable again, and waiters need not wait until the lock is stale. */
async function removeLater(fs: LockFs, path: string, staleMs: number): Promise<void> {
  const until = performance.now() + staleMs;
  while (performance.now() < until) {
    await sleep(retryMs, undefined, { ref: false });
    const error = await new Promise<Error | null>((resolve) => fs.rmdir(path, resolve));
    if (error === null || lostCodes.has(systemCode(error))) return;
  }
}

/** The library's codes for a lock that was no longer ours to release. */
const lostCodes: ReadonlySet<string | undefined> = new Set(['ERELEASED', 'ENOTACQUIRED', 'ENOENT']);

export interface AgeOptions {
  readonly staleMs: number;
  readonly updateMs: number;
  readonly clock: Pick<Clock, 'steady'>;
}

/** Half a heartbeat of patience beyond the heartbeat itself. */
const heartbeats = 1.5;

/**
 * For one waiter and one lock: returns the modification time by which the library judges the lock's age.
 *
 * The library relies on the wall clock alone, which jumps after a suspend, or when a machine without a battery-backed
 * clock receives the time. Then every lock looks old until its next heartbeat, and a waiter would take a live one; a
 * clock that was set back keeps a dead lock for as long. So a waiter accepts an old lock as abandoned only after it
 * has seen it unchanged for longer than a heartbeat, and any lock, whatever the clock says, after the whole stale time.
 */
export function createAgeJudge({ staleMs, updateMs, clock }: AgeOptions) {
  let seen: Stats | undefined;
  let since = 0;
  return (lock: Stats): Date => {
    if (!seen || seen.ino !== lock.ino || seen.mtimeMs !== lock.mtimeMs) since = clock.steady();
    seen = lock;
    const unchangedMs = clock.steady() - since;
    if (unchangedMs > staleMs) return new Date(0);
    return unchangedMs > heartbeats * updateMs ? lock.mtime : new Date();
  };
}
