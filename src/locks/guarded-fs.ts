/**
 * Third layer of the lock: file functions for the documented `fs` option of proper-lockfile 4.1.2, which remove or
 * touch the lock directory only while it is still the intended one.
 *
 * The bare library judges a lock by its age and then removes whatever is there. Two processes that judge the same stale
 * lock both remove, the second one the fresh lock of the first, and both are owners: in up to 19 % of rounds with 32
 * processes (moxystudio/node-proper-lockfile#121). In the same way a late `release` removes the lock of the successor,
 * and a late heartbeat keeps the successor's lock alive in the old owner's name.
 *
 * Here a directory is identified by its inode and its last seen modification time, our own also by its birth
 * time: file managers and NAS systems write into any directory. A removal happens under a short-lived guard directory and
 * after a fresh check, synchronously. The remaining race needs a process that is suspended between two system calls for
 * longer than a guard lives; the fence and the owner record cover that.
 */
import { mkdir, mkdirSync, rmdirSync, rmSync, stat, statSync, utimesSync, type Stats } from 'node:fs';

import { systemCode } from '../errors.js';

type Done = (error: Error | null) => void;
type Found = (error: Error | null, stats?: Pick<Stats, 'mtime'>) => void;

/** The part of `node:fs` that proper-lockfile calls, and {@link LockFs.isOurs}. */
export interface LockFs {
  mkdir(path: string, done: Done): void;
  stat(path: string, found: Found): void;
  utimes(path: string, accessed: Date, modified: Date, done: Done): void;
  rmdir(path: string, done: Done): void;
  rmdirSync(path: string): void;
  /** Whether the directory at `path` is the one that we made. */
  isOurs(path: string): boolean;
  /** Ends the heartbeat, even if the library has just begun one. */
  end(): void;
}

/** A guard is held for a few system calls. One that is unchanged for this long was left by a crash. */
const guardStaleMs = 5_000;
const guardPauseMs = 3;
/** A guard that cannot be removed in this time was not made by a receiver. */
const guardWaitMs = 4 * guardStaleMs;

export interface GuardOptions {
  readonly staleMs: number;
  /** The modification time by which the library judges the lock; by default the true one. */
  readonly ageOf?: ((lock: Stats) => Date) | undefined;
}

/** One object per attempt to lock: it remembers the directory that it made. */
export function guardedFs({ staleMs, ageOf }: GuardOptions): LockFs {
  /** The directory that we made, as we last wrote it. */
  let mine: Stats | undefined;
  /** The directory whose age the library checked last. */
  let judged: Stats | undefined;
  let isEnded = false;
  const isMine = (now: Stats | undefined): boolean => same(mine, now) || isSameBirth(mine, now);
  const isOurs = (path: string): boolean => isMine(attempt(() => statSync(path)));

  return {
    mkdir(path, done) {
      const begun = performance.now();
      mkdir(path, (error) => {
        if (error) return done(error);
        mine = attempt(() => statSync(path));
        // If that was too slow, the directory can belong to another process that found ours stale.
        if (mine && performance.now() - begun < staleMs / 2) return done(null);
        mine = undefined;
        done(lost());
      });
    },

    stat(path, found) {
      stat(path, (error, stats) => {
        judged = stats;
        // After an error the library would begin the next heartbeat of a lock that it no longer knows, and throw.
        if (isEnded) return found(lost());
        if (mine && isMine(stats)) return found(null, mine);
        if (!stats || mine || !ageOf) return found(error, stats);
        found(null, { mtime: ageOf(stats) });
      });
    },

    utimes(path, accessed, modified, done) {
      if (isEnded || !mine || !isOurs(path)) return done(lost());
      try {
        utimesSync(path, accessed, modified);
        const now = statSync(path);
        const written = now.ino === mine.ino && Math.abs(now.mtimeMs - modified.getTime()) < 1_000;
        if (!written) return done(lost());
        mine = now;
        done(null);
      } catch (error) {
        done(error as Error);
      }
    },

    rmdir(path, done) {
      const meant = mine ?? judged;
      const remove = (): void => {
        const now = statSync(path);
        if (mine ? isMine(now) : same(meant, now)) removeLock(path);
        else if (mine) throw lost();
        // Otherwise another process took over the stale lock; the library's next mkdir reports that.
      };
      // No other process removes a lock with a recent heartbeat, so the usual release needs no guard.
      if (mine && Date.now() - mine.mtimeMs < staleMs / 2) attemptTo(done, remove);
      else underGuard(`${path}.guard`, done, remove);
    },

    rmdirSync(path) {
      if (isOurs(path)) removeLock(path);
    },

    isOurs,

    end() {
      isEnded = true;
    },
  };
}

function same(a: Stats | undefined, b: Stats | undefined): boolean {
  return a !== undefined && b !== undefined && a.ino === b.ino && a.mtimeMs === b.mtimeMs;
}

/** A file system without times of birth reports 0, or the time of the last change. */
function isSameBirth(a: Stats | undefined, b: Stats | undefined): boolean {
  return a !== undefined && a.ino === b?.ino && a.birthtimeMs > 0 && a.birthtimeMs === b.birthtimeMs;
}

/** Removes a lock, also one into which another program has written, such as `.DS_Store` or `@eaDir`. */
function removeLock(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes(systemCode(error) ?? '')) throw error;
    rmSync(path, { recursive: true });
  }
}

/** The code with which the library ends the lock at once instead of trying again. */
function lost(): Error {
  return Object.assign(new Error('the lock directory is no longer ours'), { code: 'ENOENT' });
}

/** Runs a synchronous action in one process at a time. */
function underGuard(guard: string, done: Done, act: () => void): void {
  let seen: Stats | undefined;
  let since = 0;
  const begun = performance.now();
  const enter = (): void => {
    const now = performance.now();
    try {
      mkdirSync(guard);
    } catch (error) {
      if (systemCode(error) !== 'EEXIST' || now - begun > guardWaitMs) return done(error as Error);
      const there = attempt(() => statSync(guard));
      if (!same(seen, there)) since = now;
      seen = there;
      if (now - since > guardStaleMs) attempt(() => removeLock(guard));
      setTimeout(enter, guardPauseMs * (0.5 + Math.random()));
      return;
    }
    attemptTo((error) => {
      if (performance.now() - now < guardStaleMs) attempt(() => removeLock(guard));
      done(error);
    }, act);
  };
  enter();
}

function attemptTo(done: Done, act: () => void): void {
  let failure: Error | null = null;
  try {
    act();
  } catch (error) {
    failure = error as Error;
  }
  done(failure);
}

function attempt<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}
