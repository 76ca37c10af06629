/**
 * Time as the pairing window and the sessions see it. It never jumps, unlike the wall clock of a machine that
 * has just learnt the time: a heartbeat on that one would end every session at once. Tests bring their own.
 */

export interface Clock {
  /** Milliseconds since some fixed moment; never goes backwards. */
  now(): number;
  /**
   * Calls back once after `delayMs`, unless the returned function is called before. `keepsAlive` for a wait that a
   * caller awaits: without it the timer does not keep the process alive.
   */
  after(delayMs: number, callback: () => void, keepsAlive?: boolean): () => void;
}

/** The machine's monotonic clock. */
export const systemClock: Clock = Object.freeze({
  now: () => performance.now(),
  after(delayMs: number, callback: () => void, keepsAlive = false) {
    const timer = setTimeout(callback, delayMs);
    if (!keepsAlive) timer.unref();
    return () => clearTimeout(timer);
  },
});

/**
 * Tells when the wall clock was set forward. Stamps from before then look older than they are: a board without a battery
 * begins with the time of its last end and learns the true one a minute later, and what was built in that minute would
 * pass for weeks old.
 *
 * Against the steady clock, which stands still while a machine sleeps: then things are kept a night longer.
 */
export interface WallClockJumps {
  /** By how many milliseconds the wall clock was set forward since the last call; 0 for less than a minute. */
  taken(): number;
}

const leastMs = 60_000;

/** Both in milliseconds: since 1970, and of a clock that nobody sets. */
export function watchWallClock(wall: () => number, steady: () => number): WallClockJumps {
  let ahead = wall() - steady();
  return {
    taken() {
      const before = ahead;
      ahead = wall() - steady();
      return ahead - before >= leastMs ? ahead - before : 0;
    },
  };
}
