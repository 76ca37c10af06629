/**
 * Evicts items that are kept while they are used and fit: job results, installed ESPHome releases, shared toolchains.
 * Each store knows its entries and how to remove one safely; this module decides when.
 */
import type { Reserve } from '../disk/reserve.js';
import type { Strange } from '../jobs/devices-on-disk.js';
import type { JobService } from '../jobs/job-service.js';
import { lastUse } from '../jobs/record.js';
import type { Log } from '../log.js';
import { type StoredItem, removeEach, strangeLeft, type SweepResult } from './sweep.js';

export interface EvictableEntry {
  readonly item: StoredItem;
  /** Disk usage. */
  readonly bytes: number;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
  readonly isInUse: boolean;
  /** The entry has its own size limit: it does not count towards the store's, and is evicted by age alone. */
  readonly goesByAgeOnly?: boolean;
}

export interface EvictableStore {
  /** The present entries, with their last measured sizes. Throws system errors. */
  list(): Promise<readonly EvictableEntry[]>;
  /** Measures entries that may have changed. Throws system errors when the store cannot be read. */
  measure?(signal: AbortSignal): Promise<void>;
  /** Files in the store's directory that do not belong to it. Throws system errors. */
  strange?(): Promise<readonly Strange[]>;
  /** False if the entry was used since it was listed, or is gone. Throws `LOCK_TIMEOUT` and system errors. */
  remove(entry: EvictableEntry): Promise<boolean>;
}

export interface EvictionOrder {
  /** How long an unused entry is kept. */
  readonly ttlMs: number;
  /** Limit for the whole store; null for none. The least recently used entries go first. */
  readonly maxBytes: number | null;
  readonly now: number;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
  readonly reserve: Pick<Reserve, 'spend'>;
  readonly log: Log;
}

/** Reports entries that cannot be removed in `left`. Throws only when the store cannot be read. */
export async function evict(store: EvictableStore, order: EvictionOrder): Promise<SweepResult> {
  const chosen = chooseEvictions(await store.list(), order);
  const { removed, left } = await removeEntries(store, chosen, order);
  return { removed, left: [...left, ...strangeLeft((await store.strange?.()) ?? [])] };
}

/** Chooses the entries to remove, least recently used first. An entry in use counts but is never chosen. */
function chooseEvictions(
  entries: readonly EvictableEntry[],
  { ttlMs, maxBytes, now }: Pick<EvictionOrder, 'ttlMs' | 'maxBytes' | 'now'>,
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

export function removeEntries(
  store: EvictableStore,
  entries: readonly EvictableEntry[],
  { dryRun, signal, reserve, log }: Pick<EvictionOrder, 'dryRun' | 'signal' | 'reserve' | 'log'>,
): Promise<SweepResult> {
  return removeEach(entries, ({ item }) => item, signal, {
    async remove(entry) {
      const { item, bytes, isInUse } = entry;
      if (isInUse) return 'it is in use';
      if (dryRun) return bytes;
      if (!(await reserve.spend(() => store.remove(entry)))) return 'it was used or removed in the meantime';
      log.info({ item, bytes }, 'unused item removed');
      return bytes;
    },
    failed: (error, { item }) => log.warn({ item, err: error }, 'unused item removal failed'),
  });
}

/** The packed results of finished jobs. Removing one also removes the job's record and log. */
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
      if (job === undefined || lastUse(job) !== usedAt) return false;
      return jobs.remove(job.id);
    },
  };
}
