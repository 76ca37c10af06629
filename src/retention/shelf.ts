/**
 * Things that are kept as long as somebody uses them and there is room: results of jobs, installed releases of ESPHome,
 * shared toolchains. Each kind knows what it has and how one is taken away safely; when, is decided here for all.
 */
import { messageOf } from '../errors.js';
import type { Log } from '../log.js';
import type { Item, Left, Removed } from './report.js';
import { whyLeft, type SweepResult } from './sweep.js';

export interface ShelfEntry {
  readonly item: Item;
  /** Of the volume. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
  readonly isInUse: boolean;
}

export interface Shelf {
  /** What is there now. Throws system errors. */
  list(): Promise<readonly ShelfEntry[]>;
  /** Takes one away unless it has been used since it was listed; false then. Throws `LOCK_TIMEOUT`, system errors. */
  remove(entry: ShelfEntry): Promise<boolean>;
}

export interface ShelfLimits {
  /** After as long without use, in milliseconds, an entry goes. */
  readonly ttlMs: number;
  /** Of the volume, for all; null for no limit. Those that were not used for the longest time go first. */
  readonly maxBytes: number | null;
}

export interface TrimOrder extends ShelfLimits {
  readonly now: number;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** Never rejects for one entry. Throws what the look at the shelf throws. */
export async function trimShelf(shelf: Shelf, order: TrimOrder): Promise<SweepResult> {
  const chosen = tooOldOrTooMuch(await shelf.list(), order);
  return takeAway(shelf, chosen, order);
}

/** Those that are to go, the least recently used first. One in use never is, but counts. */
export function tooOldOrTooMuch(
  entries: readonly ShelfEntry[],
  { ttlMs, maxBytes, now }: ShelfLimits & { readonly now: number },
): readonly ShelfEntry[] {
  let bytes = entries.reduce((sum, entry) => sum + entry.bytes, 0);
  return entries
    .toSorted((a, b) => a.usedAt - b.usedAt)
    .filter((entry) => {
      const isTooMuch = maxBytes !== null && bytes > maxBytes && entry.bytes > 0;
      if (entry.isInUse || !(isTooMuch || now - entry.usedAt >= ttlMs)) return false;
      bytes -= entry.bytes;
      return true;
    });
}

/** Takes these away one after the other; stops between two when it is aborted. */
export async function takeAway(
  shelf: Shelf,
  entries: readonly ShelfEntry[],
  { dryRun, signal, log }: Pick<TrimOrder, 'dryRun' | 'signal' | 'log'>,
): Promise<SweepResult> {
  const removed: Removed[] = [];
  const left: Left[] = [];
  for (const entry of entries) {
    if (signal.aborted) break;
    const { item, bytes } = entry;
    try {
      if (entry.isInUse) left.push({ what: item, why: 'it is in use' });
      else if (dryRun || (await shelf.remove(entry))) removed.push({ item, bytes });
    } catch (error) {
      left.push({ what: item, why: whyLeft(error) });
      log.warn({ item, error: messageOf(error) }, 'something that is not used any more could not be removed');
    }
  }
  return { removed, left };
}
