/**
 * The jobs that this server knows, in memory, backed by a store that can be slow or fail. Memory is authoritative: a
 * store that fails never costs a running build, and a record that could not be stored is tried again until it is.
 *
 * Also decides what becomes of jobs whose receiver ended. A crash and an orderly stop are treated alike, so that a
 * restart costs no job its place in the queue.
 */
import { setImmediate as yieldToOthers } from 'node:timers/promises';

import type { Clock } from '../async/clock.js';
import { createCondition } from '../async/signals.js';
import { startOfProgress } from '../esphome/progress.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, type JobRecord } from './record.js';
import type { JobStore } from './store.js';

export interface Job {
  record: JobRecord;
  /**
   * The record that others see while an end is being stored: a crash must not take back an end that was already
   * reported.
   */
  shown: JobRecord | null;
  readonly controller: AbortController;
  /** Resolves after the job's last event. */
  ended: Promise<void>;
  /** The next write of the record, until it begins. */
  writing: Promise<StoreFault | null> | undefined;
}

const firstRetryMs = 500;
const longestRetryMs = 10_000;

export interface StoreFault {
  readonly error: unknown;
}

export type JobRegistry = ReturnType<typeof createJobRegistry>;

interface JobRegistryOptions {
  readonly store: JobStore;
  /** Removes a job's files other than its record. */
  readonly removeRest: (id: string) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
}

export function createJobRegistry({ store, removeRest, clock, log }: JobRegistryOptions) {
  const jobs = new Map<string, Job>();
  /** Indexed, so that a lookup for one peer does not walk the jobs of all. */
  const byPeer = new Map<DashboardId, Set<Job>>();
  /** Can include jobs that have ended since the last call of `live`. */
  const live = new Set<Job>();
  /** Those whose newest record is not on disk. */
  const unsaved = new Set<Job>();
  const { until, wake } = createCondition();
  let retryMs = firstRetryMs;
  let cancelRetry: (() => void) | undefined;
  let newestCreatedAt = 0;
  /** Oldest first. */
  const all = (): Job[] => [...jobs.values()];
  /** The jobs of one peer, oldest first. */
  const of = (dashboardId: DashboardId): Job[] => [...(byPeer.get(dashboardId) ?? [])];

  function enter(job: Job): void {
    const { id, dashboardId, createdAt } = job.record;
    jobs.set(id, job);
    const own = byPeer.get(dashboardId) ?? new Set();
    byPeer.set(dashboardId, own.add(job));
    if (!isTerminal(job.record)) live.add(job);
    newestCreatedAt = Math.max(newestCreatedAt, createdAt);
  }

  function drop(id: string): Job | undefined {
    const job = jobs.get(id);
    if (job === undefined) return undefined;
    jobs.delete(id);
    live.delete(job);
    unsaved.delete(job);
    wake();
    const { dashboardId } = job.record;
    const own = byPeer.get(dashboardId);
    own?.delete(job);
    if (own?.size === 0) byPeer.delete(dashboardId);
    return job;
  }

  /** Adds jobs so that all are in the order of their creation. */
  function enterInOrder(more: readonly Job[]): void {
    const inOrder = [...all(), ...more].toSorted((a, b) => a.record.createdAt - b.record.createdAt);
    for (const index of [jobs, byPeer, live]) index.clear();
    for (const job of inOrder) enter(job);
  }

  async function write(job: Job): Promise<StoreFault | null> {
    await yieldToOthers();
    job.writing = undefined;
    const { record } = job;
    // It was removed in the meantime, and must not reappear.
    if (jobs.get(record.id) !== job) return null;
    try {
      await store.put(record);
    } catch (error) {
      if (!unsaved.has(job)) log.error({ id: record.id, err: error }, 'job record not stored, trying again');
      if (jobs.get(record.id) === job) unsaved.add(job);
      cancelRetry ??= clock.after(retryMs, () => void saveAgain());
      return { error };
    }
    if (unsaved.delete(job)) log.info({ id: record.id }, 'job record stored after retries');
    wake();
    return null;
  }

  async function saveAgain(): Promise<void> {
    cancelRetry?.();
    // The writes below must not begin another round.
    cancelRetry = (): void => {};
    for (const job of [...unsaved]) await persist(job);
    retryMs = unsaved.size > 0 ? Math.min(2 * retryMs, longestRetryMs) : firstRetryMs;
    cancelRetry = unsaved.size > 0 ? clock.after(retryMs, () => void saveAgain()) : undefined;
  }

  function add(record: JobRecord): Job {
    const controller = new AbortController();
    const job = { record, shown: null, controller, ended: Promise.resolve(), writing: undefined };
    enter(job);
    return job;
  }

  /**
   * Stores the record as it is now or a moment later, so that two steps in a row cost one write of some milliseconds.
   * Resolves with the fault if the store fails, and then tries again. Never rejects.
   */
  function persist(job: Job): Promise<StoreFault | null> {
    return (job.writing ??= write(job));
  }

  return {
    all,
    of,
    add,
    persist,
    live(): Job[] {
      for (const job of live) if (isTerminal(job.record)) live.delete(job);
      return [...live];
    },
    /** In milliseconds since 1970; 0 without a job. */
    newestCreatedAt: (): number => newestCreatedAt,
    get: (id: string): Job | undefined => jobs.get(id),
    /** A device's first build expects as many files as the largest of its platform, of any dashboard. */
    withExpected(record: JobRecord): JobRecord {
      if (record.progress.expected > 0) return record;
      const counts = all()
        .filter((job) => job.record.platform === record.platform && job.record.state === 'completed')
        .map((job) => (job.record.progress.total === 0 ? job.record.progress.compiled : 0));
      return { ...record, progress: { ...record.progress, expected: Math.max(0, ...counts) } };
    },
    /** See {@link JobService.find}. */
    newest: (dashboardId: DashboardId, peerJobId: string): Job | undefined =>
      of(dashboardId).findLast(({ record }) => record.peerJobId === peerJobId && !record.interrupted),
    /** Adds jobs loaded from the store after a restart. Returns those that had not ended; some have now. */
    adopt(records: readonly JobRecord[]): Job[] {
      const known = all();
      const resumed = afterRestart(
        records,
        known.map(({ record }) => record),
        clock.wall(),
      );
      const adopted = resumed.map((record, n) => {
        const job = add(record);
        if (record !== records[n]) void persist(job);
        return job;
      });
      enterInOrder([]);
      return adopted.filter((_, n) => !isTerminal(records[n] as JobRecord));
    },
    /** Resolves when the newest record of the job is on disk, or the job was removed. */
    saved: (job: Job): Promise<void> => until(() => !unsaved.has(job)),
    /** Removes an ended job with all its files. Throws system errors; the job is then still known. */
    async forget(id: string): Promise<void> {
      const job = drop(id);
      try {
        await removeRest(id);
        await store.remove(id);
      } catch (error) {
        if (job !== undefined) enterInOrder([job]);
        throw error;
      }
    },
    /** Takes back a job that could not be stored and was not acknowledged. Never rejects. */
    async withdraw({ record: { id } }: Job): Promise<void> {
      drop(id);
      await store.remove(id).catch((error: unknown) => {
        log.warn({ id, err: error }, 'record of a refused job not removed');
      });
    },
    /** Tries one last time to store what is not on disk. Never rejects. */
    async close(): Promise<void> {
      await saveAgain();
      cancelRetry?.();
      if (unsaved.size > 0) log.error({ jobs: unsaved.size }, 'job records lost: not stored before close');
    },
  };
}

/** The size of each peer's packed results, in bytes. */
export function resultBytesOf(jobs: readonly Pick<Job, 'record'>[]): ReadonlyMap<DashboardId, number> {
  const sums = new Map<DashboardId, number>();
  for (const { record } of jobs) {
    const { dashboardId, artifacts } = record;
    if (artifacts !== null) sums.set(dashboardId, (sums.get(dashboardId) ?? 0) + artifacts.bytes);
  }
  return sums;
}

/**
 * The records of a receiver that ended, in the order of `left`, as they continue at time `now` (milliseconds). `known`
 * are the other jobs, which do not change. Neither list has duplicate ids. A job that a newer one replaced never comes
 * back: it would build an old configuration over a new one, under an id that by now means another job.
 */
export function afterRestart(
  left: readonly JobRecord[],
  known: readonly JobRecord[],
  now: number,
): readonly JobRecord[] {
  const [works, names] = [new Set<string>(), new Set<string>()];
  const results = new Map<string, JobRecord>();
  const leftIds = new Set(left.map(({ id }) => id));
  for (const record of [...known, ...left].toSorted((a, b) => b.createdAt - a.createdAt)) {
    const work = `${record.dashboardId} ${record.device} ${record.target}`;
    const name = `${record.dashboardId} ${record.peerJobId}`;
    const isReplaced = works.has(work) || names.has(name);
    const result = leftIds.has(record.id) ? resume(record, isReplaced, now) : record;
    results.set(record.id, result);
    // Only a complete bundle replaces the one before it, and an interrupted job leaves its id to the next.
    if (result.bundle !== null) works.add(work);
    if (!result.interrupted) names.add(name);
  }
  return left.map(({ id }) => results.get(id) as JobRecord);
}

/**
 * One job as it continues after its receiver ended: unchanged, queued again, or failed. A running job is queued again
 * only once: a build that crashes its receiver would otherwise do so forever.
 */
export function afterStop(record: JobRecord, now: number): JobRecord {
  if (isTerminal(record)) return record;
  if (record.state === 'receiving' || record.bundle === null) {
    return {
      ...failed(record, 'the build server restarted before it had stored the bundle of this job', now),
      interrupted: true,
    };
  }
  if (record.state !== 'running') return record;
  if (record.requeued) return failed(record, 'the build server stopped twice while running this job', now);
  return {
    ...record,
    ...{ state: 'queued', requeued: true, startedAt: null, esphomeVersion: null, attempt: 1 },
    progress: startOfProgress(record.progress.expected),
  };
}

function resume(record: JobRecord, isReplaced: boolean, now: number): JobRecord {
  if (!isReplaced || isTerminal(record)) return afterStop(record, now);
  return { ...record, state: 'cancelled', errorMessage: 'replaced by a newer job', finishedAt: now };
}

function failed(record: JobRecord, errorMessage: string, finishedAt: number): JobRecord {
  return { ...record, state: 'failed', failureReason: 'internal', errorMessage, finishedAt };
}
