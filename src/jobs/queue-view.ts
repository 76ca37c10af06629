/**
 * What can be seen of the queue from outside: how long it is, and who comes before whom. It is told of the peers' jobs
 * and of the host's own builds together, for they share the slots.
 */
import type { QueueStatus } from './events.js';
import type { Ledger } from './ledger.js';
import type { LocalWork } from './local-work.js';
import type { JobQueue } from './queue.js';
import { thisHost, turnsOf, withTurns, type Owner, type Waitable } from './waiting.js';

export interface QueueView {
  status(): QueueStatus;
  /** The same jobs; those that only wait for a slot say who comes before them. */
  withTurns<T extends Waitable>(jobs: readonly T[]): T[];
}

export interface QueueViewOptions {
  readonly ledger: Pick<Ledger, 'get' | 'live'>;
  readonly local: Pick<LocalWork, 'list'>;
  readonly queue: Pick<JobQueue, 'status'>;
}

export function createQueueView({ ledger, local, queue }: QueueViewOptions): QueueView {
  function ownerOf(id: string): Owner {
    const record = ledger.get(id)?.record;
    return record ? { dashboardId: record.dashboardId, label: record.peerLabel } : thisHost;
  }

  return {
    status() {
      const jobs = [...ledger.live().map(({ record }) => record), ...local.list()];
      const running = jobs.some(({ state }) => state === 'running');
      const queue_depth = jobs.filter(({ state }) => state === 'queued').length;
      return { idle: !running && queue_depth === 0, running, queue_depth };
    },
    withTurns: (jobs) => withTurns(jobs, turnsOf(queue.status(), ownerOf)),
  };
}
