/**
 * The jobs that this server knows: in memory, with a store behind that may be slow or refuse.
 *
 * Memory leads. A store that refuses costs what a restart would have found again, never a running build.
 */
import { setImmediate as turn } from 'node:timers/promises';

import type { Clock } from '../async/clock.js';
import { startOfProgress } from '../esphome/progress.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, type JobRecord } from './record.js';
import type { JobStore } from './store.js';

export interface Job {
  record: JobRecord;
  /**
   * What others see instead, while an end is being written down: an end that somebody has heard of must not be taken
   * back by a crash.
   */
  shown: JobRecord | null;
  readonly controller: AbortController;
  /** Resolves after the job's last event. */
  ended: Promise<void>;
  /** The next write of the record, as long as it has not begun. */
  writing: Promise<boolean> | undefined;
}

export interface JobRegistry {
  /** Oldest first. */
  all(): readonly Job[];
  /** Those of one peer, oldest first. */
  of(dashboardId: DashboardId): readonly Job[];
  live(): readonly Job[];
  /** Of the job that was taken last, in milliseconds since 1970; 0 without one. */
  newestCreatedAt(): number;
  get(id: string): Job | undefined;
  /** The newest of a peer's jobs under its own id, except those that a stop or crash of this server ended. */
  newest(dashboardId: DashboardId, peerJobId: string): Job | undefined;
  add(record: JobRecord): Job;
  /** Takes jobs in that a store has given after a restart. Returns those that had not ended; some have now. */
  adopt(records: readonly JobRecord[]): readonly Job[];
  /**
   * Stores the record as it is now or a moment later, so that a job which takes two steps at once is written once: each
   * write takes milliseconds. False when the store refuses. Never rejects.
   */
  persist(job: Job): Promise<boolean>;
  /** Drops an ended job with all that belongs to it. Throws system errors. */
  forget(id: string): Promise<void>;
}

export interface JobRegistryOptions {
  readonly store: JobStore;
  /** Removes what belongs to a job besides its record. */
  readonly removeRest: (id: string) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
}

/** A registry without jobs. */
export function createJobRegistry({ store, removeRest, clock, log }: JobRegistryOptions): JobRegistry {
  const jobs = new Map<string, Job>();
  /** Each peer's, for a question about one must not walk the jobs of all. */
  const byPeer = new Map<DashboardId, Set<Job>>();
  /** And some that have ended since somebody looked. */
  const live = new Set<Job>();
  let newestCreatedAt = 0;
  const all = (): Job[] => [...jobs.values()];

  function enter(job: Job): void {
    const { id, dashboardId, createdAt } = job.record;
    jobs.set(id, job);
    const own = byPeer.get(dashboardId) ?? new Set();
    byPeer.set(dashboardId, own.add(job));
    if (!isTerminal(job.record)) live.add(job);
    newestCreatedAt = Math.max(newestCreatedAt, createdAt);
  }

  function drop(id: string): void {
    const job = jobs.get(id);
    if (job === undefined) return;
    jobs.delete(id);
    live.delete(job);
    const { dashboardId } = job.record;
    const own = byPeer.get(dashboardId);
    own?.delete(job);
    if (own?.size === 0) byPeer.delete(dashboardId);
  }

  async function write(job: Job): Promise<boolean> {
    await turn();
    job.writing = undefined;
    const { record } = job;
    // It was forgotten meanwhile, and must not come back.
    if (jobs.get(record.id) !== job) return false;
    try {
      await store.put(record);
      return true;
    } catch (error) {
      log.error({ id: record.id, err: error }, 'job record not stored');
      return false;
    }
  }

  const registry: JobRegistry = {
    all,
    of: (dashboardId) => [...(byPeer.get(dashboardId) ?? [])],
    live() {
      for (const job of live) if (isTerminal(job.record)) live.delete(job);
      return [...live];
    },
    newestCreatedAt: () => newestCreatedAt,
    get: (id) => jobs.get(id),
    newest: (dashboardId, peerJobId) =>
      registry
        .of(dashboardId)
        .findLast(({ record }) => record.peerJobId === peerJobId && !record.interrupted),
    add(record) {
      const controller = new AbortController();
      const job = { record, shown: null, controller, ended: Promise.resolve(), writing: undefined };
      enter(job);
      return job;
    },
    adopt(records) {
      const known = all();
      const resumed = afterRestart(
        records,
        known.map(({ record }) => record),
        clock.wall(),
      );
      const adopted = resumed.map((record, n) => {
        const job = registry.add(record);
        if (record !== records[n]) void registry.persist(job);
        return job;
      });
      const inOrder = [...known, ...adopted].toSorted((a, b) => a.record.createdAt - b.record.createdAt);
      for (const index of [jobs, byPeer, live]) index.clear();
      for (const job of inOrder) enter(job);
      return adopted.filter((_, n) => !isTerminal(records[n] as JobRecord));
    },
    persist: (job) => (job.writing ??= write(job)),
    async forget(id) {
      drop(id);
      await removeRest(id);
      await store.remove(id);
    },
  };
  return registry;
}

/** What the packed results of each peer take, in bytes. */
export function resultBytesOf(jobs: readonly Pick<Job, 'record'>[]): ReadonlyMap<DashboardId, number> {
  const sums = new Map<DashboardId, number>();
  for (const { record } of jobs) {
    const { dashboardId, artifacts } = record;
    if (artifacts !== null) sums.set(dashboardId, (sums.get(dashboardId) ?? 0) + artifacts.bytes);
  }
  return sums;
}

/**
 * What becomes of jobs whose receiver has ended, by a crash or in good order: the same, so that a restart costs
 * nobody a place in the queue.
 *
 * A job that waits goes on waiting. One that ran is queued again, but once: a build that brings its receiver down
 * would otherwise do so for ever. What a newer job has replaced never comes back, or it would build an old
 * configuration over a new one and speak under an id that means another job by now.
 */

/**
 * The records that were left, in the order of `left`, as they are to go on at time `now` (milliseconds). `known` are
 * the jobs besides them, which do not change. Both hold no id twice.
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
    // Only a whole bundle replaces the one before it, and an interrupted job leaves its id to the next.
    if (result.bundle !== null) works.add(work);
    if (!result.interrupted) names.add(name);
  }
  return left.map(({ id }) => results.get(id) as JobRecord);
}

/** One job as it goes on when its receiver has ended: unchanged, queued again, or failed. */
export function afterStop(record: JobRecord, now: number): JobRecord {
  if (isTerminal(record)) return record;
  if (record.state === 'receiving' || record.bundle === null) {
    return {
      ...failed(record, 'the build server was restarted and does not have the bundle of this job', now),
      interrupted: true,
    };
  }
  if (record.state !== 'running') return record;
  if (record.requeued) return failed(record, 'the build server has ended twice during this job', now);
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
