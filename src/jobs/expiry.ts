/**
 * Removes ended jobs, with their logs and results, and cancels the jobs of dashboards that stay offline.
 *
 * A result that was pruned before its user fetched it, because its device had been built again, left a client with an
 * unknown job. So a job is removed only when it was unused for the time to live, or when its own peer has too many of
 * its kind: jobs with fetched results first, then the oldest. Jobs without a result are counted separately, so that a
 * series of failures costs no result, and many results do not cost the log of the latest failure. No peer displaces
 * the jobs of another.
 */
import type { Clock } from '../async/clock.js';
import type { ResolvedOptions } from '../options/core.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, lastUse, type JobRecord } from './record.js';
import type { Job, JobRegistry } from './registry.js';

type JobExpiryOptions = Pick<ResolvedOptions, 'resultTtlMs' | 'maxResultsPerPeer' | 'log'> & {
  readonly registry: JobRegistry;
  readonly clock: Clock;
};

const checkIntervalMs = 3_600_000;

/** Removes expired jobs now and periodically. */
export function startJobExpiry({ registry, resultTtlMs, maxResultsPerPeer, clock, log }: JobExpiryOptions) {
  let cancel = (): void => {};
  let removing = removeExpired();

  async function removeExpired(): Promise<void> {
    cancel = clock.after(Math.min(checkIntervalMs, resultTtlMs), () => void (removing = removeExpired()));
    const isExpired = (record: JobRecord): boolean => clock.wall() - lastUse(record) >= resultTtlMs;
    for (const job of registry.all()) {
      // Evaluated for each job in turn: one can be fetched while others are removed.
      if (isTerminal(job.record) && isExpired(job.record)) await forget([job]);
    }
  }

  async function forget(jobs: readonly Job[]): Promise<void> {
    for (const { record } of jobs) {
      await registry.forget(record.id).catch((error: unknown) => {
        log.error({ id: record.id, err: error }, 'expired job not removed');
      });
    }
  }

  return {
    /** Removes a peer's ended jobs beyond its limits. Never rejects. */
    async prune(dashboardId: DashboardId): Promise<void> {
      const ended = registry.of(dashboardId).filter(({ record }) => isTerminal(record));
      const without = ended.filter(({ record }) => record.artifacts === null);
      const results = ended.filter(({ record }) => record.artifacts !== null);
      const isFetched = ({ record }: Job): boolean => record.fetchedAt !== null;
      const inOrder = [...results.filter(isFetched), ...results.filter((job) => !isFetched(job))];
      const tooMany = (jobs: readonly Job[]): readonly Job[] =>
        jobs.slice(0, Math.max(0, jobs.length - maxResultsPerPeer));
      await forget([...tooMany(without), ...tooMany(inOrder)]);
    },
    recordFetched(job: Job): void {
      job.record = { ...job.record, fetchedAt: clock.wall() };
      void registry.persist(job);
    },
    /** Resolves when no removal is in progress. */
    async stop(): Promise<void> {
      cancel();
      await removing;
    },
  };
}

/**
 * Watches for peers that are offline while their jobs wait or run. A dashboard that reconnects within the grace time
 * finds its jobs; those of one that does not would occupy slots for results that nobody fetches.
 */
export function watchAbsentPeers(absentPeerGraceMs: number, clock: Clock, drop: (id: DashboardId) => void) {
  const present = new Set<DashboardId>();
  const timers = new Map<DashboardId, () => void>();

  function wait(id: DashboardId): void {
    if (timers.has(id)) return;
    const cancel = clock.after(absentPeerGraceMs, () => {
      timers.delete(id);
      drop(id);
    });
    timers.set(id, cancel);
  }

  return {
    setConnected(id: DashboardId, connected: boolean): void {
      if (!connected) {
        present.delete(id);
        return wait(id);
      }
      present.add(id);
      timers.get(id)?.();
      timers.delete(id);
    },
    /** A peer has jobs here: starts its grace time if it is offline. */
    expect(id: DashboardId): void {
      if (!present.has(id)) wait(id);
    },
    stop(): void {
      for (const cancel of timers.values()) cancel();
      timers.clear();
    },
  };
}
