/**
 * When a lock may be taken for left behind. The library asks the clock alone, and the clock lies: it jumps after
 * a suspend, or when a small machine without a battery hears the time; then every lock looks old until its next
 * heartbeat, and a waiter would take a live one. Set back, it keeps a dead lock for as long.
 *
 * So a waiter believes in an old lock only after it has itself seen it unchanged for longer than a heartbeat, and
 * believes in any lock's death that it has seen unchanged for the whole stale time, whatever the clock says.
 */
import type { Stats } from 'node:fs';

export interface AgeOptions {
  readonly staleMs: number;
  readonly updateMs: number;
  /** Monotonic, in ms. */
  readonly now?: () => number;
}

/** Half a heartbeat of patience beyond the heartbeat itself. */
const heartbeats = 1.5;

/** A judge for one waiter and one lock: gives the modification time that the library is to believe in. */
export function createAgeJudge({ staleMs, updateMs, now = () => performance.now() }: AgeOptions) {
  let seen: Stats | undefined;
  let since = 0;
  return (lock: Stats): Date => {
    if (!seen || seen.ino !== lock.ino || seen.mtimeMs !== lock.mtimeMs) since = now();
    seen = lock;
    const unchangedMs = now() - since;
    if (unchangedMs > staleMs) return new Date(0);
    return unchangedMs > heartbeats * updateMs ? lock.mtime : new Date();
  };
}
