/**
 * Things that are kept as long as somebody uses them and there is room: results of jobs, installed releases of ESPHome,
 * shared toolchains. Each kind knows what it has and how one is taken away safely; when, is decided here for all.
 */
import type { Strange } from '../jobs/devices-on-disk.js';
import type { JobService } from '../jobs/job-service.js';
import { lastUse } from '../jobs/record.js';
import type { Log } from '../log.js';
import {
  type StoredItem,
  type LeftInPlace,
  type Removed,
  strangeLeft,
  whyLeft,
  type SweepResult,
} from './sweep.js';

export interface EvictableEntry {
  readonly item: StoredItem;
  /** Of the volume. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
  readonly isInUse: boolean;
  /** It has a limit of its own: it does not count for that of the store, and goes by its age only. */
  readonly goesByAgeOnly?: boolean;
}

export interface EvictableStore {
  /** What is there now, as large as it was when somebody measured it last. Throws system errors. */
  list(): Promise<readonly EvictableEntry[]>;
  /** Measures what may have changed. Throws system errors of the look at the store. */
  measure?(signal: AbortSignal): Promise<void>;
  /** What lies there and is none of it. Throws system errors. */
  strange?(): Promise<readonly Strange[]>;
  /** Takes one away unless it has been used since it was listed; false then. Throws `LOCK_TIMEOUT`, system errors. */
  remove(entry: EvictableEntry): Promise<boolean>;
}

export interface EvictionLimits {
  /** After as long without use, in milliseconds, an entry goes. */
  readonly ttlMs: number;
  /** Of the volume, for all; null for no limit. Those that were not used for the longest time go first. */
  readonly maxBytes: number | null;
}

export interface EvictionOrder extends EvictionLimits {
  readonly now: number;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** Never rejects for one entry. Throws what the look at the store throws. */
export async function evict(store: EvictableStore, order: EvictionOrder): Promise<SweepResult> {
  const chosen = chooseEvictions(await store.list(), order);
  const { removed, left } = await removeEntries(store, chosen, order);
  return { removed, left: [...left, ...strangeLeft((await store.strange?.()) ?? [])] };
}

/** Those that are to go, the least recently used first. One in use never is, but counts. */
function chooseEvictions(
  entries: readonly EvictableEntry[],
  { ttlMs, maxBytes, now }: EvictionLimits & { readonly now: number },
): readonly EvictableEntry[] {
  const counts = (entry: EvictableEntry): boolean => entry.goesByAgeOnly !== true;
  let bytes = entries.filter(counts).reduce((sum, entry) => sum + entry.bytes, 0);
  return entries
    .toSorted((a, b) => a.usedAt - b.usedAt)
    .filter((entry) => {
      const isTooMuch = maxBytes !== null && bytes > maxBytes && entry.bytes > 0 && counts(entry);
      if (entry.isInUse || !(isTooMuch || now - entry.usedAt >= ttlMs)) return false;
      if (counts(entry)) bytes -= entry.bytes;
      return true;
    });
}

/** Takes these away one after the other; stops between two when it is aborted. */
export async function removeEntries(
  store: EvictableStore,
  entries: readonly EvictableEntry[],
  { dryRun, signal, log }: Pick<EvictionOrder, 'dryRun' | 'signal' | 'log'>,
): Promise<SweepResult> {
  const removed: Removed[] = [];
  const left: LeftInPlace[] = [];
  for (const entry of entries) {
    if (signal.aborted) break;
    const { item, bytes } = entry;
    try {
      if (entry.isInUse) left.push({ what: item, why: 'it is in use' });
      else if (dryRun) removed.push({ item, bytes });
      else if (await store.remove(entry)) {
        removed.push({ item, bytes });
        log.info({ item, bytes }, 'unused item removed');
      } else left.push({ what: item, why: 'it was used meanwhile, or is gone already' });
    } catch (error) {
      left.push({ what: item, why: whyLeft(error) });
      log.warn({ item, err: error }, 'unused item removal failed');
    }
  }
  return { removed, left };
}

/** The packed results of ended jobs as a store: what goes with one is its job's record and log. */
export function createResultStore(jobs: Pick<JobService, 'results' | 'get' | 'remove'>): EvictableStore {
  return {
    async list() {
      return jobs.results().map((job) => ({
        item: { kind: 'result', jobId: job.id } as const,
        bytes: job.artifacts?.bytes ?? 0,
        usedAt: lastUse(job),
        isInUse: false,
      }));
    },
    async remove({ item, usedAt }) {
      const job = item.kind === 'result' ? jobs.get(item.jobId) : undefined;
      // Fetched since it was listed.
      if (job === undefined || lastUse(job) !== usedAt) return false;
      return jobs.remove(job.id);
    },
  };
}
