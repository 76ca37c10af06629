/**
 * The jobs that this server knows: in memory, with a store behind that may be slow or refuse.
 *
 * Memory leads. A store that refuses costs what a restart would have found again, never a running build. What is
 * kept is bounded for each peer, so that nobody can push another peer's results out.
 */
import { messageOf } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, type JobRecord } from './job.js';
import type { JobStore } from './store.js';

export interface Job {
  record: JobRecord;
  readonly controller: AbortController;
  /** Resolves after the job's last event. */
  ended: Promise<void>;
}

export interface Ledger {
  /** Oldest first. */
  all(): readonly Job[];
  live(): readonly Job[];
  get(id: string): Job | undefined;
  /** The newest of a peer's jobs under its own id, except those that a stop or crash of this server ended. */
  newest(dashboardId: DashboardId, peerJobId: string): Job | undefined;
  add(record: JobRecord): Job;
  /** Stores the record as it is now. Never rejects. */
  persist(job: Job): Promise<void>;
  /** Drops an ended job with all that belongs to it. Throws system errors. */
  forget(id: string): Promise<void>;
  /** Forgets the oldest ended jobs of a peer beyond the limit. Never rejects. */
  prune(dashboardId: DashboardId): Promise<void>;
}

export interface LedgerOptions {
  readonly store: JobStore;
  /** Removes what belongs to a job besides its record. */
  readonly removeRest: (id: string) => Promise<void>;
  readonly maxEndedPerPeer: number;
  readonly now: () => number;
  readonly log: Log;
}

/** Loads what is known from before; a job that had not ended then has failed as interrupted. Throws system errors. */
export async function openLedger({
  store,
  removeRest,
  maxEndedPerPeer,
  now,
  log,
}: LedgerOptions): Promise<Ledger> {
  const jobs = new Map<string, Job>();
  const all = (): Job[] => [...jobs.values()];

  const ledger: Ledger = {
    all,
    live: () => all().filter(({ record }) => !isTerminal(record)),
    get: (id) => jobs.get(id),
    newest: (dashboardId, peerJobId) =>
      all().findLast(
        ({ record }) =>
          record.dashboardId === dashboardId && record.peerJobId === peerJobId && !record.interrupted,
      ),
    add(record) {
      const job = { record, controller: new AbortController(), ended: Promise.resolve() };
      jobs.set(record.id, job);
      return job;
    },
    async persist({ record }) {
      await store.put(record).catch((error: unknown) => {
        log.error({ id: record.id, error: messageOf(error) }, 'a job record could not be stored');
      });
    },
    async forget(id) {
      jobs.delete(id);
      await removeRest(id);
      await store.remove(id);
    },
    async prune(dashboardId) {
      const ended = all().filter(({ record }) => record.dashboardId === dashboardId && isTerminal(record));
      for (const { record } of ended.slice(0, Math.max(0, ended.length - maxEndedPerPeer))) {
        await ledger.forget(record.id).catch((error: unknown) => {
          log.error({ id: record.id, error: messageOf(error) }, 'an old job could not be forgotten');
        });
      }
    },
  };

  for (const record of await store.load()) {
    const job = ledger.add(isTerminal(record) ? record : interrupted(record, now()));
    if (job.record !== record) await ledger.persist(job);
  }
  return ledger;
}

function interrupted(record: JobRecord, finishedAt: number): JobRecord {
  const errorMessage = 'the build server was restarted during this job';
  return {
    ...record,
    state: 'failed',
    failureReason: 'internal',
    errorMessage,
    interrupted: true,
    finishedAt,
  };
}
