/**
 * Second layer of the lock: proper-lockfile with every option said. It keeps other processes out as long as its
 * heartbeat runs, and lets them in when the holder has died.
 *
 * Promised: one holder at a time as far as clocks and the file system allow; a crashed holder's lock is free
 * after `staleMs` and at most 2 s; `onLost` is called at most once, never after `release` has begun, and nothing
 * is ever thrown from a timer (the library's default for a lost lock ends the host's process). Not promised: that
 * a holder that stood still for longer than `staleMs` knows at once that it has a successor.
 *
 * The library must be loaded at the start and not by the first lock: its `signal-exit` ends the process at a signal for
 * which it finds no other listener, and a host's own by `once` is gone by then when it was there first.
 */
import type { Stats } from 'node:fs';
import { join } from 'node:path';

import lockfile from 'proper-lockfile';

import type { Clock } from '../async/clock.js';
import { systemCode } from '../errors.js';
import { guardedFs, type GuardOptions } from './guarded-fs.js';

export interface FileLockOptions {
  /** A lock that old is taken for left behind. The library's least is 2 s. */
  readonly staleMs: number;
  /** Time between heartbeats, at most half of `staleMs`. The library's least is 1 s. */
  readonly updateMs: number;
  readonly onLost: (cause: Error) => void;
  /** See {@link GuardOptions.ageOf}. */
  readonly ageOf?: GuardOptions['ageOf'];
}

export interface FileLock {
  /** Looks whether the lock is ours at this moment, without waiting for the heartbeat to tell. */
  isHeld(): boolean;
  /** Idempotent. A lock that was lost is left alone. Throws system errors; the lock then goes stale. */
  release(): Promise<void>;
}

/**
 * One attempt to lock an absolute, existing directory, by making `lock` in it. Null when somebody else has it.
 * Throws system errors. Nothing may ever be put into `lock` itself: it could not be removed then.
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
    // The library keys its list of held locks by the first argument, so that must differ for each lock.
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
      releasing ??= unlock().catch((error: unknown) => {
        if (!lostCodes.has(systemCode(error))) throw error;
      });
      return releasing;
    },
  };
}

/** How the library says that there was nothing (of ours) to release. */
const lostCodes: ReadonlySet<string | undefined> = new Set(['ERELEASED', 'ENOTACQUIRED', 'ENOENT']);

/**
 * When a lock may be taken for left behind. The library asks the clock alone, and the clock lies: it jumps after
 * a suspend, or when a small machine without a battery hears the time; then every lock looks old until its next
 * heartbeat, and a waiter would take a live one. Set back, it keeps a dead lock for as long.
 *
 * So a waiter believes in an old lock only after it has itself seen it unchanged for longer than a heartbeat, and
 * believes in any lock's death that it has seen unchanged for the whole stale time, whatever the clock says.
 */
export interface AgeOptions {
  readonly staleMs: number;
  readonly updateMs: number;
  readonly clock: Pick<Clock, 'steady'>;
}

/** Half a heartbeat of patience beyond the heartbeat itself. */
const heartbeats = 1.5;

/** A judge for one waiter and one lock: gives the modification time that the library is to believe in. */
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
