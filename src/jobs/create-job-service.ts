/**
 * All jobs of this server: taking them in, ending them, finding them again, also after a restart. What one job goes
 * through stands in lifecycle.ts.
 *
 * Every way to ask for a job leads through one registry, whoever took the job in and before whichever restart: a job that
 * was known to one part of the server and not to another once ran without a frame to its peer, and could not be
 * cancelled.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';

import type { StoredArtifacts } from '../artifacts/store.js';
import type { Clock } from '../async/clock.js';
import { createEmitter } from '../async/emitter.js';
import type { StagedBundle, BundleStore } from '../bundles/store.js';
import { ReceiverError } from '../errors.js';
import { startOfProgress } from '../esphome/progress.js';
import type { Log } from '../log.js';
import type { ResolvedOptions } from '../options/core.js';
import { formatConfiguration, type DashboardId } from '../paths/index.js';
import type { RunningJob } from './build.js';
import type { ChosenEsphome } from './choose-esphome.js';
import { watchAbsentPeers, startJobExpiry } from './expiry.js';
import type { JobEvent, JobService } from './job-service.js';
import { createJobLifecycle } from './lifecycle.js';
import { createLocalWork, createQueueSummary } from './local-work.js';
import { jobLogFile, readJobLog } from './log.js';
import type { JobQueue } from './queue.js';
import { isTerminal, type JobRecord, type JobRequest, type Outcome } from './record.js';
import { createJobRegistry, resultBytesOf, type Job, type JobRegistry } from './registry.js';
import type { JobStore } from './store.js';

export type { StoredArtifacts } from '../artifacts/store.js';
export type { JobEvent, JobService } from './job-service.js';
export type { JobRecord } from './record.js';

/** The options that limit what one peer can have here. */
export type JobLimits = Pick<
  ResolvedOptions,
  'maxOutputBytes' | 'maxJobsPerPeer' | 'maxResultsPerPeer' | 'resultTtlMs' | 'absentPeerGraceMs'
>;

export interface JobServiceDeps extends JobLimits {
  readonly store: JobStore;
  readonly queue: JobQueue;
  /** What a job needs before it queues, for however long; null for nothing. What it throws ends the job. */
  readonly choose: (job: RunningJob) => Promise<ChosenEsphome | null>;
  /** The work of a job that has a slot. Never rejects; resolves when nothing of it runs any more. */
  readonly run: (job: RunningJob, staged: StagedBundle, chosen: ChosenEsphome | null) => Promise<Outcome>;
  readonly bundles: BundleStore;
  readonly openArtifacts: (record: JobRecord) => Promise<StoredArtifacts>;
  /** Nothing there is fine. */
  readonly removeArtifacts: (id: string) => Promise<void>;
  /** Where the logs are; must exist. */
  readonly jobsDir: string;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Loads what is known from before. Jobs that waited or ran when their receiver ended go on by themselves. Throws system
 * errors.
 */
export async function createJobService(deps: JobServiceDeps): Promise<JobService> {
  const { store, jobsDir, clock, log } = deps;
  const { maxJobsPerPeer, maxResultsPerPeer, resultTtlMs, absentPeerGraceMs } = deps;
  const registry = createJobRegistry({ store, removeRest, clock, log });
  const listeners = createEmitter<JobEvent>('jobs', log);
  const local = createLocalWork({ queue: deps.queue, clock, onChange: tellQueue });
  const view = createQueueSummary({ registry, local, queue: deps.queue });
  const prune = (id: DashboardId): Promise<void> => kept.prune(id);
  const lives = createJobLifecycle({ ...deps, removeArtifacts, registry, listeners, tellQueue, prune });
  const drop = (id: DashboardId): void => void stopAllOf(id, 'its dashboard has stayed away');
  const absent = watchAbsentPeers({ absentPeerGraceMs, clock, drop });
  const closing = new AbortController();

  function tellQueue(): void {
    listeners.emit({ type: 'queue', status: view.status() });
  }

  function restore(records: readonly JobRecord[]): void {
    for (const job of registry.adopt(records)) {
      absent.expect(job.record.dashboardId);
      lives.resume(job);
    }
  }

  async function restoreLeft(): Promise<void> {
    try {
      restore(await store.loadLeft(closing.signal));
    } catch (error) {
      if (closing.signal.aborted) return;
      log.error({ err: error }, "takeover of another receiver's jobs failed");
    }
  }

  async function stopAllOf(dashboardId: DashboardId, message: string): Promise<void> {
    const own = liveOf(dashboardId);
    for (const job of own) lives.stop(job, message);
    await Promise.all(own.map((job) => job.ended));
  }

  async function removeRest(id: string): Promise<void> {
    await removeArtifacts(id);
    await rm(jobLogFile(jobsDir, id), { force: true });
  }

  async function removeArtifacts(id: string): Promise<void> {
    await deps.removeArtifacts(id).catch((error: unknown) => {
      log.error({ id, err: error }, 'artifact removal failed');
    });
  }

  async function suspend(): Promise<void> {
    closing.abort();
    absent.stop();
    local.close();
    await restoringLeft;
    await lives.suspend();
  }

  function known(id: string): Job {
    const job = registry.get(id);
    if (job === undefined) throw new ReceiverError('NOT_FOUND', 'there is no such job');
    return job;
  }

  function liveOf(dashboardId: DashboardId): Job[] {
    return registry.of(dashboardId).filter(({ record }) => !isTerminal(record));
  }

  restore(await store.load());
  const kept = startJobExpiry({ registry, resultTtlMs, maxResultsPerPeer, clock, log });
  const restoringLeft = restoreLeft();

  return {
    submit(request, intake, acknowledge = () => {}) {
      if (closing.signal.aborted) throw new ReceiverError('STATE', 'the build server is stopping');
      const refusal = liveOf(request.dashboardId).length >= maxJobsPerPeer ? tooMany(maxJobsPerPeer) : null;
      const job = registry.add(firstRecord(request, clock.wall(), registry));
      lives.begin(job, { intake, acknowledge, refusal });
      return job.record;
    },
    cancel: (id) => lives.stop(registry.get(id), 'cancelled'),
    cancelByPeer: (dashboardId, peerJobId) =>
      lives.stop(registry.newest(dashboardId, peerJobId), 'cancelled'),
    cancelAllOf: (dashboardId) => stopAllOf(dashboardId, 'cancelled'),
    notePeer: (dashboardId, connected) => absent.note(dashboardId, connected),
    find(dashboardId, peerJobId) {
      const job = registry.newest(dashboardId, peerJobId);
      return job && shownOf(job);
    },
    list: () => view.withTurns(registry.all().map(shownOf)),
    get(id) {
      const job = registry.get(id);
      return job && view.withTurns([shownOf(job)])[0];
    },
    results: () =>
      registry
        .all()
        .map(shownOf)
        .filter((record) => isTerminal(record) && record.artifacts !== null),
    resultBytes: () => resultBytesOf(registry.all()),
    isBusy: ({ dashboardId, device }) =>
      registry.of(dashboardId).some((job) => job.record.device === device && !isTerminal(shownOf(job))),
    enqueueLocal: local.enqueue,
    local: () => view.withTurns(local.list()),
    queueStatus: view.status,
    subscribe: listeners.subscribe,
    async openArtifacts(id) {
      const job = known(id);
      if (job.record.artifacts === null) throw new ReceiverError('STATE', 'the job has no artifacts');
      const stored = await deps.openArtifacts(job.record);
      const noteFetched = (): void => {
        kept.noteFetched(job);
        listeners.emit({ type: 'fetched', job: job.record });
      };
      return { ...stored, read: () => readThen(stored.read(), noteFetched) };
    },
    readLog: async (id) => readJobLog(jobLogFile(jobsDir, known(id).record.id)),
    async remove(id) {
      const job = registry.get(id);
      if (job === undefined || !isTerminal(job.record)) return false;
      await job.ended;
      await registry.forget(id);
      return true;
    },
    suspend,
    async close() {
      await suspend();
      await kept.stop();
      await store.close();
    },
  };
}

function shownOf({ record, shown }: Job): JobRecord {
  return shown ?? record;
}

/** All that `source` gives; calls `then` when it has been taken to its end. */
async function* readThen(source: AsyncIterable<Buffer>, then: () => void): AsyncGenerator<Buffer> {
  yield* source;
  then();
}

function tooMany(most: number): Outcome {
  const message = `at most ${most} jobs of one dashboard may wait or run; build again when one has ended`;
  return { to: 'failed', reason: 'resource', message };
}

function firstRecord(request: JobRequest, now: number, registry: JobRegistry): JobRecord {
  const configuration = formatConfiguration(request, request.file);
  // Later than all others, so that after a restart it is still known which job is the newer one.
  const createdAt = Math.max(now, 1 + registry.newestCreatedAt());
  // PlatformIO names no total, so a build of it is measured by the largest before it.
  const counts = registry
    .of(request.dashboardId)
    .filter(({ record }) => record.configuration === configuration && record.progress.total === 0)
    .map(({ record }) => record.progress.compiled);
  return {
    ...request,
    ...{ id: randomUUID(), configuration, state: 'receiving', interrupted: false },
    ...{ failureReason: null, errorMessage: '', esphomeVersion: null, attempt: 1, artifacts: null },
    ...{ cached: false, resultKey: null, bundle: null, requeued: false, waiting: null },
    ...{ createdAt, startedAt: null, finishedAt: null, fetchedAt: null },
    progress: startOfProgress(Math.max(0, ...counts)),
  };
}
