/**
 * The key that pairs the first dashboard with a server that has no screen: printed once, good for one pairing,
 * held in memory only. It is forgotten in the same step in which it matches, so that two requests which arrive
 * together cannot both spend it.
 */
import { createHash, randomInt, timingSafeEqual } from 'node:crypto';

import type { Clock } from '../async/clock.js';

/** How long a key is good for (Device Builder 1.26). */
export const oneTimeKeyMs = 900_000;
/** Without the letters and digits that look alike (Device Builder 1.26). */
const alphabet = 'ABCDEFGHJKMNPQRSTVWXYZ23456789';
const symbols = 16;
const maxPresented = 256;

export interface OneTimeKey {
  /** Whether the key can still be spent. */
  isArmed(): boolean;
  /** True at most once: when the text is the key, in any case and with any separators. The key is then forgotten. */
  spend(presented: string): boolean;
  /** Forgets the key. */
  disarm(): void;
}

/** Makes a key and hands it, as `XXXX-XXXX-XXXX-XXXX`, to `show`, the only place that ever sees it. */
export function createOneTimeKey(clock: Clock, show: (key: string) => void): OneTimeKey {
  const key = Array.from({ length: symbols }, () => alphabet[randomInt(alphabet.length)]).join('');
  const deadline = clock.steady() + oneTimeKeyMs;
  let expected: Buffer | undefined = digest(key);
  const isArmed = (): boolean => expected !== undefined && clock.steady() < deadline;
  show(key.replace(/....(?!$)/g, '$&-'));
  return {
    isArmed,
    spend(presented) {
      if (!isArmed() || expected === undefined || presented.length > maxPresented) return false;
      if (!timingSafeEqual(digest(presented.toUpperCase().replace(/[^0-9A-Z]/g, '')), expected)) return false;
      expected = undefined;
      return true;
    },
    disarm() {
      expected = undefined;
    },
  };
}

/** Equal lengths for the comparison in constant time. */
function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
