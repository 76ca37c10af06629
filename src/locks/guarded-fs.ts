/**
 * Third layer of the lock: the file functions that proper-lockfile 4.1.2 gets through its documented `fs` option,
 * made so that the lock directory is removed or touched only while it is the very directory that was meant.
 *
 * The bare library judges a lock by its age and then removes whatever is there. Two processes that judge the
 * same stale lock both remove, the second one the fresh lock of the first, and both are owners: in up to 19 % of
 * rounds with 32 processes (moxystudio/node-proper-lockfile#121). In the same way a late `release` removes the
 * lock of the successor, and a late heartbeat keeps the successor's lock alive in the old owner's name.
 *
 * Here a directory is known by its inode and its modification time as last seen. A removal happens under a
 * short-lived guard directory and after a fresh look, without giving the event loop a turn between look and
 * removal. What remains needs a process that stands still between two system calls for longer than a guard
 * lives; the fence and the owner record are there for that.
 */
import { mkdir, mkdirSync, rmdirSync, stat, statSync, utimesSync, type Stats } from 'node:fs';

import { systemCode } from '../errors.js';

type Done = (error: Error | null) => void;
type Found = (error: Error | null, stats?: Pick<Stats, 'mtime'>) => void;

/** The part of `node:fs` that proper-lockfile calls, and one function more. */
export interface LockFs {
  mkdir(path: string, done: Done): void;
  stat(path: string, found: Found): void;
  utimes(path: string, accessed: Date, modified: Date, done: Done): void;
  rmdir(path: string, done: Done): void;
  rmdirSync(path: string): void;
  /** For us: whether the directory at `path` is the one that we made, with our last heartbeat. */
  isOurs(path: string): boolean;
}

/** A guard is held for a few system calls. One that stands unchanged for so long was left by a crash. */
const guardStaleMs = 5_000;
const guardPauseMs = 3;
/** A guard that cannot be cleared away in this time was not made by us. */
const guardWaitMs = 4 * guardStaleMs;

export interface GuardOptions {
  /** As the library has it. */
  readonly staleMs: number;
  /** The modification time that the library is to judge the lock by; by default the true one. */
  readonly ageOf?: ((lock: Stats) => Date) | undefined;
}

/** One object for each attempt to lock: it remembers the directory that it made. */
export function guardedFs({ staleMs, ageOf }: GuardOptions): LockFs {
  /** The directory that we made, as we last wrote it. */
  let mine: Stats | undefined;
  /** The directory that the library has looked at last, to judge its age. */
  let judged: Stats | undefined;
  const isOurs = (path: string): boolean =>
    same(
      mine,
      attempt(() => statSync(path)),
    );

  return {
    mkdir(path, done) {
      const begun = performance.now();
      mkdir(path, (error) => {
        if (error) return done(error);
        mine = attempt(() => statSync(path));
        // Too slow, and what is there now may be another's, who found ours stale.
        if (mine && performance.now() - begun < staleMs / 2) return done(null);
        mine = undefined;
        done(lost());
      });
    },

    stat(path, found) {
      stat(path, (error, stats) => {
        judged = stats;
        if (!stats || mine || !ageOf) return found(error, stats);
        found(null, { mtime: ageOf(stats) });
      });
    },

    utimes(path, accessed, modified, done) {
      if (!mine || !isOurs(path)) return done(lost());
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
        if (same(meant, now)) rmdirSync(path);
        else if (mine) throw lost();
        // Otherwise somebody has taken the stale lock over; the library's next mkdir will say so.
      };
      // Nobody else removes a lock that has just had its heartbeat, so the usual release needs no guard.
      if (mine && Date.now() - mine.mtimeMs < staleMs / 2) attemptTo(done, remove);
      else underGuard(`${path}.guard`, done, remove);
    },

    rmdirSync(path) {
      if (isOurs(path)) rmdirSync(path);
    },

    isOurs,
  };
}

function same(a: Stats | undefined, b: Stats | undefined): boolean {
  return a !== undefined && b !== undefined && a.ino === b.ino && a.mtimeMs === b.mtimeMs;
}

/** The library's own word for "our directory is gone": it ends the lock at once instead of trying again. */
function lost(): Error {
  return Object.assign(new Error('the lock directory is no longer ours'), { code: 'ENOENT' });
}

/** Runs one synchronous action in one process at a time. A guard that outlives its time was left by a crash. */
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
      if (now - since > guardStaleMs) attempt(() => rmdirSync(guard));
      setTimeout(enter, guardPauseMs * (0.5 + Math.random()));
      return;
    }
    attemptTo((error) => {
      if (performance.now() - now < guardStaleMs) attempt(() => rmdirSync(guard));
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
