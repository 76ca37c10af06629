/**
 * Tells when the wall clock was set forward. Stamps from before then look older than they are: a board without a battery
 * begins with the time of its last end and learns the true one a minute later, and what was built in that minute would
 * pass for weeks old.
 *
 * Against the steady clock, which stands still while a machine sleeps: then things are kept a night longer.
 */
export interface WallSteps {
  /** By how many milliseconds the wall clock was set forward since the last call; 0 for less than a minute. */
  taken(): number;
}

const leastMs = 60_000;

/** Both in milliseconds: since 1970, and of a clock that nobody sets. */
export function watchSteps(wall: () => number, steady: () => number): WallSteps {
  let ahead = wall() - steady();
  return {
    taken() {
      const before = ahead;
      ahead = wall() - steady();
      return ahead - before >= leastMs ? ahead - before : 0;
    },
  };
}
