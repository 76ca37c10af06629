/**
 * A clock that stands still until the test moves it, so that five minutes pass in no time and never by luck. It
 * counts the timers that still wait, which shows one that was left behind.
 */
import type { Clock } from '../../src/async/clock.js';

export interface ManualClock extends Clock {
  /** Moves on; timers that fall due are called in their order, each at its own moment. */
  advance(ms: number): void;
  readonly waiting: number;
}

export function manualClock(): ManualClock {
  let now = 1_000;
  const timers = new Map<object, { readonly at: number; readonly callback: () => void }>();
  return {
    now: () => now,
    after(delayMs, callback) {
      const key = {};
      timers.set(key, { at: now + delayMs, callback });
      return () => void timers.delete(key);
    },
    advance(ms) {
      const end = now + ms;
      for (;;) {
        const due = [...timers].filter(([, { at }]) => at <= end).toSorted(([, a], [, b]) => a.at - b.at)[0];
        if (due === undefined) break;
        const [key, { at, callback }] = due;
        timers.delete(key);
        now = Math.max(now, at);
        callback();
      }
      now = end;
    },
    get waiting() {
      return timers.size;
    },
  };
}
