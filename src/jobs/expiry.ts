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
import type { Log } from '../log.js';
import type { ResolvedOptions } from '../options/core.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, lastUse, type JobRecord } from './record.js';
import type { Job, JobRegistry } from './registry.js';

export interface JobExpiry {
  /** Removes a peer's ended jobs beyond its limits. Never rejects. */
  prune(dashboardId: DashboardId): Promise<void>;
  /** Call when the result of a job was sent completely. */
  recordFetched(job: Job): void;
  /** Resolves when no removal is in progress. */
  stop(): Promise<void>;
}

export interface JobExpiryOptions extends Pick<ResolvedOptions, 'resultTtlMs' | 'maxResultsPerPeer'> {
  readonly registry: JobRegistry;
  readonly clock: Clock;
  readonly log: Log;
}

const checkIntervalMs = 3_600_000;

/** Removes expired jobs now and periodically. */
export function startJobExpiry({
  registry,
  resultTtlMs,
  maxResultsPerPeer,
  clock,
  log,
}: JobExpiryOptions): JobExpiry {
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
    async prune(dashboardId) {
      const ended = registry.of(dashboardId).filter(({ record }) => isTerminal(record));
      const without = ended.filter(({ record }) => record.artifacts === null);
      const results = ended.filter(({ record }) => record.artifacts !== null);
      const isFetched = ({ record }: Job): boolean => record.fetchedAt !== null;
      const inOrder = [...results.filter(isFetched), ...results.filter((job) => !isFetched(job))];
      const tooMany = (jobs: readonly Job[]): readonly Job[] =>
        jobs.slice(0, Math.max(0, jobs.length - maxResultsPerPeer));
      await forget([...tooMany(without), ...tooMany(inOrder)]);
    },
    recordFetched(job) {
      job.record = { ...job.record, fetchedAt: clock.wall() };
      void registry.persist(job);
    },
    async stop() {
      cancel();
      await removing;
    },
  };
}

/**
 * Watches for peers that are offline while their jobs wait or run. A dashboard that reconnects within the grace time
 * finds its jobs; those of one that does not would occupy slots for results that nobody fetches.
 */
export interface AbsentPeers {
  setConnected(id: DashboardId, connected: boolean): void;
  /** A peer has jobs here: starts its grace time if it is offline. */
  expect(id: DashboardId): void;
  stop(): void;
}

export interface AbsentPeersOptions {
  readonly absentPeerGraceMs: number;
  readonly clock: Clock;
  /** Called when a peer was offline for the whole grace time. */
  readonly drop: (id: DashboardId) => void;
}

export function watchAbsentPeers({ absentPeerGraceMs, clock, drop }: AbsentPeersOptions): AbsentPeers {
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
    setConnected(id, connected) {
      if (!connected) {
        present.delete(id);
        return wait(id);
      }
      present.add(id);
      timers.get(id)?.();
      timers.delete(id);
    },
    expect(id) {
      if (!present.has(id)) wait(id);
    },
    stop() {
      for (const cancel of timers.values()) cancel();
      timers.clear();
    },
  };
}
