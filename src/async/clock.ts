/**
 * Time in its three forms: what people and other processes call it, how much of it has passed, and being called later.
 * Tests set a clock of their own, so that five minutes pass at once and no deadline depends on luck.
 */

export interface Clock {
  /**
   * Milliseconds since 1970. For what is stored, shown, or compared with what another process has stored. Somebody can set
   * it: a board without a battery begins in 1970 and jumps as soon as it has a network.
   */
  wall(): number;
  /** Milliseconds since some moment. For durations: nobody sets it. It may stand still while the machine sleeps. */
  steady(): number;
  /**
   * Calls back once, after `delayMs` of the steady clock; the returned function cancels that. `keepsAlive` for a wait that
   * a caller awaits: without it the timer does not keep the process alive.
   */
  after(delayMs: number, callback: () => void, keepsAlive?: boolean): () => void;
}

/** The machine's own. */
export const systemClock: Clock = Object.freeze({
  wall: () => Date.now(),
  steady: () => performance.now(),
  after(delayMs: number, callback: () => void, keepsAlive = false) {
    const timer = setTimeout(callback, delayMs);
    if (!keepsAlive) timer.unref();
    return () => clearTimeout(timer);
  },
});

/**
 * Tells when the wall clock was set forward: what was stored before then looks older than it is, and what a board built in
 * the minute before it learnt the time would pass for weeks old.
 *
 * After a sleep in which the steady clock stood still it tells the same, and things are kept for as much longer.
 */
export interface WallClockJumps {
  /** By how many milliseconds the wall clock was set forward since the last call; 0 for less than a minute. */
  taken(): number;
}

const leastMs = 60_000;

export function watchWallClock({ wall, steady }: Pick<Clock, 'wall' | 'steady'>): WallClockJumps {
  let ahead = wall() - steady();
  return {
    taken() {
      const before = ahead;
      ahead = wall() - steady();
      return ahead - before >= leastMs ? ahead - before : 0;
    },
  };
}
