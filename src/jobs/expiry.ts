/**
 * Which ended jobs are kept, with their logs and results. A result that its user has not fetched yet is what all the
 * work was for: one that was pruned because its device had been built again left a client with an unknown job.
 *
 * So a job goes when nobody has used it for the time to live, or when its own peer has too many of its kind: of those
 * with a result first the ones whose result was fetched, else the oldest. Jobs without a result are counted apart,
 * for a row of failures must not cost a result, nor many results the log of the failure that has just been. No peer
 * pushes another peer's jobs out.
 */
import type { Clock } from '../async/clock.js';
import type { Log } from '../log.js';
import type { ResolvedOptions } from '../options/core.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, lastUse, type JobRecord } from './record.js';
import type { Job, JobRegistry } from './registry.js';

export interface JobExpiry {
  /** Lets the ended jobs of a peer go that are too many. Never rejects. */
  prune(dashboardId: DashboardId): Promise<void>;
  /** The result of a job was sent to its end. */
  noteFetched(job: Job): void;
  /** Resolves when nothing is being removed. */
  stop(): Promise<void>;
}

export interface JobExpiryOptions extends Pick<ResolvedOptions, 'resultTtlMs' | 'maxResultsPerPeer'> {
  readonly registry: JobRegistry;
  readonly clock: Clock;
  readonly log: Log;
}

/** How often what has expired is looked for. */
const lookMs = 3_600_000;

/** Looks for what has expired now and from then on. */
export function startJobExpiry({
  registry,
  resultTtlMs,
  maxResultsPerPeer,
  clock,
  log,
}: JobExpiryOptions): JobExpiry {
  let cancel = (): void => {};
  let looking = look();

  async function look(): Promise<void> {
    cancel = clock.after(Math.min(lookMs, resultTtlMs), () => void (looking = look()));
    const isExpired = (record: JobRecord): boolean => clock.wall() - lastUse(record) >= resultTtlMs;
    for (const job of registry.all()) {
      // Asked for each anew: somebody may fetch one while others are removed.
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
    noteFetched(job) {
      job.record = { ...job.record, fetchedAt: clock.wall() };
      void registry.persist(job);
    },
    async stop() {
      cancel();
      await looking;
    },
  };
}

/**
 * Peers that are away while jobs of theirs wait or run. A dashboard that comes back within the grace time finds its
 * jobs; the jobs of one that does not would take the slots of those who are there, for results that nobody fetches.
 */
export interface AbsentPeers {
  /** A peer has come, or has gone. */
  note(id: DashboardId, connected: boolean): void;
  /** A peer has jobs here. Its time runs if it is away. */
  expect(id: DashboardId): void;
  stop(): void;
}

export interface AbsentPeersOptions {
  readonly absentPeerGraceMs: number;
  readonly clock: Clock;
  /** Called when a peer has been away for the whole grace time. */
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
    note(id, connected) {
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
