/** Fake jobs: tests begin, end and fetch them, and subscribers receive the events. */
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { isTerminal, type JobRecord } from '../../src/jobs/record.js';
import type { RemoteKey } from '../../src/paths/index.js';
import type { RetentionServiceDeps } from '../../src/retention/service.js';
import { exampleRecord } from '../../src/testing/job-store-suite.js';

export interface PlayedJobs extends Omit<RetentionServiceDeps['jobs'], 'list'> {
  list(): JobRecord[];
  /** Adds a queued job of the device. */
  begin(key: RemoteKey): JobRecord;
  end(id: string): void;
  fetch(id: string): void;
  /** Drops all subscribers, as the end of their process does. */
  hush(): void;
}

export function playedJobs(): PlayedJobs {
  const records = new Map<string, JobRecord>();
  const listeners = new Set<(event: JobEvent) => void>();
  const tell = (event: JobEvent): void => listeners.forEach((listener) => listener(event));

  function enter(job: JobRecord): JobRecord {
    records.set(job.id, job);
    tell({ type: 'state', job });
    return job;
  }

  return {
    list: () => [...records.values()],
    get: (id) => records.get(id),
    isBusy: ({ dashboardId, device }) =>
      [...records.values()].some(
        (job) => job.dashboardId === dashboardId && job.device === device && !isTerminal(job),
      ),
    results: () => [...records.values()].filter((job) => isTerminal(job) && job.artifacts !== null),
    resultBytes: () => new Map(),
    stagedBytes: () => new Map(),
    begin: ({ dashboardId, device }) => enter(exampleRecord({ dashboardId, device, state: 'queued' })),
    end(id) {
      const job = records.get(id);
      if (job !== undefined && !isTerminal(job)) enter({ ...job, state: 'completed' });
    },
    fetch(id) {
      const job = records.get(id);
      if (job !== undefined) tell({ type: 'fetched', job });
    },
    async cancelAllOf(peer) {
      for (const job of records.values())
        if (job.dashboardId === peer && !isTerminal(job)) enter({ ...job, state: 'cancelled' });
    },
    remove: async (id) => records.delete(id),
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    hush: () => listeners.clear(),
  };
}
