/**
 * Which times can be those of a use. A board without a battery begins in 1970, and a clock may be set back: what was noted
 * meanwhile would look old for ever, or new for ever. Both count as now.
 */

/** Uses are noted to the minute, and clocks differ by as much. */
export const precisionMs = 60_000;
/** 2024: before it there was none of this software. */
const earliest = 1_704_067_200_000;

/** Both in milliseconds since 1970. */
export function canBeUse(time: number, now: number): boolean {
  return time >= earliest && time <= now + precisionMs;
}
