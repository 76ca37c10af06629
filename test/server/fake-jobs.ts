/**
 * Jobs that build nothing: they keep the contract that the peer server relies on (one record per submit, the newest
 * found first, an event after each change), and the test sets the pace.
 */
import { randomUUID } from 'node:crypto';

import { ReceiverError } from '../../src/errors.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { isTerminal, type JobRecord } from '../../src/jobs/record.js';
import type { SessionJobs } from '../../src/server/ports.js';
import { formatConfiguration } from '../../src/paths/index.js';

export interface FakeJobs extends SessionJobs {
  /** All records in the order of their submission. */
  records(): readonly JobRecord[];
  /** Changes the newest record and emits the event, as the runner does. */
  move(changes: Partial<JobRecord>): void;
  emit(event: JobEvent): void;
  /** Drops all records. */
  forget(): void;
  /** Stores a new record and calls back, at once unless a test delays it. */
  store: (done: (error?: Error) => void) => void;
  /** The content of a completed job's download, and how it is read. */
  artifacts: Buffer;
  open: (id: string) => ReturnType<SessionJobs['openArtifacts']>;
  /** Listeners that are still subscribed. */
  readonly listening: number;
}

export function fakeJobs(): FakeJobs {
  const records = new Map<string, JobRecord>();
  const listeners = new Set<(event: JobEvent) => void>();
  const all = (): readonly JobRecord[] => [...records.values()];
  const emit = (event: JobEvent): void => {
    for (const listener of listeners) listener(event);
  };

  function change(id: string, changes: Partial<JobRecord>): boolean {
    const record = records.get(id);
    if (!record || isTerminal(record)) return false;
    const job = { ...record, ...changes };
    records.set(id, job);
    emit({ type: 'state', job });
    return true;
  }

  const cancel = (id: string): boolean =>
    change(id, { state: 'cancelled', errorMessage: 'it was cancelled' });
  const find: SessionJobs['find'] = (dashboardId, peerJobId) =>
    all().findLast((job) => job.dashboardId === dashboardId && job.peerJobId === peerJobId);

  const jobs: FakeJobs = {
    records: all,
    move: (changes) => void change(all().at(-1)?.id ?? '', changes),
    emit,
    forget: () => records.clear(),
    store: (done) => done(),
    artifacts: Buffer.alloc(0),
    open: () =>
      Promise.resolve({
        bytes: jobs.artifacts.length,
        sha256: 'ab'.repeat(32),
        firmwareOffset: '0x10000',
        async *read() {
          for (let at = 0; at < jobs.artifacts.length; at += 50_000) {
            yield jobs.artifacts.subarray(at, at + 50_000);
            await Promise.resolve();
          }
        },
      }),
    submit(request, staged, acknowledge = () => {}) {
      const job: JobRecord = {
        ...request,
        id: randomUUID(),
        configuration: formatConfiguration(request, request.file),
        state: 'receiving',
        failureReason: null,
        errorMessage: '',
        interrupted: false,
        platform: null,
        createdAt: records.size,
        startedAt: null,
        finishedAt: null,
        fetchedAt: null,
        esphomeVersion: null,
        progress: { phase: 'starting', percent: null } as unknown as JobRecord['progress'],
        attempt: 1,
        artifacts: null,
        cached: false,
        resultKey: null,
        bundle: null,
        requeued: false,
        waiting: null,
      };
      records.set(job.id, job);
      jobs.store((error) => {
        if (error) records.delete(job.id);
        acknowledge(error ? { error } : null);
      });
      staged.then(
        () => change(job.id, { state: 'queued' }),
        (error: unknown) =>
          change(job.id, {
            state: 'failed',
            failureReason: 'bundle',
            errorMessage: (error as Error).message,
          }),
      );
      return job;
    },
    cancel,
    cancelByPeer(dashboardId, peerJobId) {
      const job = find(dashboardId, peerJobId);
      return job !== undefined && cancel(job.id);
    },
    find,
    queueStatus: () => ({ idle: true, running: false, queueDepth: 0, freeSlots: 1 }),
    subscribe(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    openArtifacts: (id) => jobs.open(id),
    get listening() {
      return listeners.size;
    },
  };
  return jobs;
}

/** For `open`: a download that fails to start. */
export function unopenable(code: 'ARTIFACTS' | 'STORAGE' | 'NOT_FOUND', message: string): FakeJobs['open'] {
  return () => Promise.reject(new ReceiverError(code, message));
}
