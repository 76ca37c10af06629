/**
 * A clock that stands still until the test moves it, so that five minutes pass in no time and never by luck. It
 * counts the timers that still wait, which shows one that was left behind.
 */
import type { Clock } from '../../src/async/clock.js';

export interface ManualClock extends Clock {
  /** Time passes, on both clocks; timers that fall due are called in their order, each at its own moment. */
  advance(ms: number): void;
  /** Somebody sets the wall clock forward, or back. */
  jump(ms: number): void;
  readonly waiting: number;
}

const january2027 = 1_800_000_000_000;

export function manualClock({ wall = january2027 }: { readonly wall?: number } = {}): ManualClock {
  let steady = 1_000;
  let ahead = wall - steady;
  const timers = new Map<object, { readonly at: number; readonly callback: () => void }>();
  return {
    wall: () => steady + ahead,
    steady: () => steady,
    after(delayMs, callback) {
      const key = {};
      timers.set(key, { at: steady + delayMs, callback });
      return () => void timers.delete(key);
    },
    advance(ms) {
      const end = steady + ms;
      for (;;) {
        const due = [...timers].filter(([, { at }]) => at <= end).toSorted(([, a], [, b]) => a.at - b.at)[0];
        if (due === undefined) break;
        const [key, { at, callback }] = due;
        timers.delete(key);
        steady = Math.max(steady, at);
        callback();
      }
      steady = end;
    },
    jump(ms) {
      ahead += ms;
    },
    get waiting() {
      return timers.size;
    },
  };
}
