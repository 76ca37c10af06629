/**
 * The jobs that this server knows: in memory, with a store behind that may be slow or refuse.
 *
 * Memory leads. A store that refuses costs what a restart would have found again, never a running build. What is
 * kept is bounded for each peer, so that nobody can push another peer's results out.
 */
import { setImmediate as turn } from 'node:timers/promises';

import { messageOf } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { isTerminal, type JobRecord } from './job.js';
import { afterRestart } from './restart.js';
import type { JobStore } from './store.js';

export interface Job {
  record: JobRecord;
  readonly controller: AbortController;
  /** Resolves after the job's last event. */
  ended: Promise<void>;
  /** The next write of the record, as long as it has not begun. */
  writing: Promise<boolean> | undefined;
}

export interface Ledger {
  /** Oldest first. */
  all(): readonly Job[];
  live(): readonly Job[];
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

/** A ledger without jobs. */
export function createLedger({ store, removeRest, maxEndedPerPeer, now, log }: LedgerOptions): Ledger {
  const jobs = new Map<string, Job>();
  const all = (): Job[] => [...jobs.values()];

  async function write(job: Job): Promise<boolean> {
    await turn();
    job.writing = undefined;
    const { record } = job;
    try {
      await store.put(record);
      return true;
    } catch (error) {
      log.error({ id: record.id, error: messageOf(error) }, 'a job record could not be stored');
      return false;
    }
  }

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
      const controller = new AbortController();
      const job = { record, controller, ended: Promise.resolve(), writing: undefined };
      jobs.set(record.id, job);
      return job;
    },
    adopt(records) {
      const known = all();
      const resumed = afterRestart(
        records,
        known.map(({ record }) => record),
        now(),
      );
      const adopted = resumed.map((record, n) => {
        const job = ledger.add(record);
        if (record !== records[n]) void ledger.persist(job);
        return job;
      });
      const inOrder = [...known, ...adopted].toSorted((a, b) => a.record.createdAt - b.record.createdAt);
      jobs.clear();
      for (const job of inOrder) jobs.set(job.record.id, job);
      return adopted.filter((_, n) => !isTerminal(records[n] as JobRecord));
    },
    persist: (job) => (job.writing ??= write(job)),
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
  return ledger;
}
