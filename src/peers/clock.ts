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
