/**
 * Wall-clock time, elapsed time, and timers, behind one interface: tests inject their own clock, so that five minutes
 * pass at once and no deadline depends on luck.
 */
export interface Clock {
  /**
   * Milliseconds since 1970. For times that are stored, shown, or compared with those of another process. It can be
   * set: a board without a battery starts in 1970 and jumps as soon as it has a network.
   */
  wall(): number;
  /** Milliseconds since some moment. For durations: it cannot be set. It can stop while the machine sleeps. */
  steady(): number;
  /**
   * Calls back once, after `delayMs` of the steady clock; the returned function cancels it. Set `keepsAlive` for a wait
   * that a caller awaits: without it the timer does not keep the process alive.
   */
  after(delayMs: number, callback: () => void, keepsAlive?: boolean): () => void;
}

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
 * Detects that the wall clock was set forward: times stored before then look too old, and a build from the minute
 * before a board received the time would look weeks old. A sleep in which the steady clock stopped looks the same, and
 * things are then kept for that much longer.
 */
export function watchWallClock({ wall, steady }: Pick<Clock, 'wall' | 'steady'>) {
  const leastMs = 60_000;
  let ahead = wall() - steady();
  return {
    /** By how many milliseconds the wall clock was set forward since the last call; 0 for less than a minute. */
    taken(): number {
      const before = ahead;
      ahead = wall() - steady();
      return ahead - before >= leastMs ? ahead - before : 0;
    },
  };
}
