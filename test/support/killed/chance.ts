/** Repeatable random choices: the same seed gives the same choices, as far as timing allows. */

export interface Chance {
  /** An integer from 0, less than `limit`. */
  below(limit: number): number;
  /** Undefined for an empty list. */
  oneOf<T>(list: readonly T[]): T | undefined;
}

/** Mulberry32: small, and good enough for this purpose. */
export function createChance(seed: number): Chance {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  const below = (limit: number): number => Math.floor(next() * limit);
  return { below, oneOf: (list) => list[below(list.length)] };
}
