/**
 * The key that pairs the first dashboard with a server without a screen: printed once, valid for one pairing, held in
 * memory only. It is spent in the same step in which it matches, so that two simultaneous requests cannot both use it.
 */
import { createHash, randomInt, timingSafeEqual } from 'node:crypto';

import type { Clock } from '../async/clock.js';

/** The validity of a key (Device Builder 1.26). */
export const oneTimeKeyMs = 900_000;
/** Without letters and digits that look alike (Device Builder 1.26). */
const alphabet = 'ABCDEFGHJKMNPQRSTVWXYZ23456789';
const symbols = 16;
const maxPresented = 256;

/** Passes the new key, as `XXXX-XXXX-XXXX-XXXX`, to `show` and nowhere else. */
export function createOneTimeKey(clock: Clock, show: (key: string) => void) {
  const key = Array.from({ length: symbols }, () => alphabet[randomInt(alphabet.length)]).join('');
  const deadline = clock.steady() + oneTimeKeyMs;
  const expected = digest(key);
  let isSpent = false;
  let isDisarmed = false;
  const isArmed = (): boolean => !isSpent && !isDisarmed && clock.steady() < deadline;
  show(key.replace(/....(?!$)/g, '$&-'));
  return {
    isArmed,
    /** Compares the text with the key, ignoring case and separators. Spends the key and returns true on a match. */
    spend(presented: string): boolean {
      if (!isArmed() || presented.length > maxPresented) return false;
      if (!timingSafeEqual(digest(presented.toUpperCase().replace(/[^0-9A-Z]/g, '')), expected)) return false;
      isSpent = true;
      return true;
    },
    /** Makes the key valid again, because the pairing that spent it failed. */
    restore(): void {
      isSpent = false;
    },
    disarm(): void {
      isDisarmed = true;
    },
  };
}

/** Gives both sides the same length for the constant-time comparison. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
