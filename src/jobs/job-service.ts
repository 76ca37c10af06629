/**
 * All jobs of this server: accepting, cancelling and finding them, also after a restart. lifecycle.ts has the steps
 * of one job.
 *
 * Every lookup goes through one registry, including for jobs from before a restart: a job known to only one part of
 * the server once ran without a frame to its peer, and could not be cancelled. A lookup, by our id or by the peer's,
 * returns the current state.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';

import type { StoredArtifacts } from '../artifacts/store.js';
import { spaceOf, type StagedBundle } from '../bundles/store.js';
import { createEmitter } from '../async/signals.js';
import { ReceiverError, quote } from '../errors.js';
import { startOfProgress } from '../esphome/progress.js';
import type { ResolvedOptions } from '../options/core.js';
import { formatConfiguration, type DashboardId, type RemoteKey } from '../paths/index.js';
import { watchAbsentPeers, startJobExpiry } from './expiry.js';
import { createJobLifecycle, type Arrival, type JobEvent, type JobSteps } from './lifecycle.js';
import { createLocalWork, createQueueSummary, type LocalJob } from './local-work.js';
import { jobLogFile, readJobLog } from './log.js';
import { isTerminal, type JobRecord, type JobRequest, type Outcome } from './record.js';
import { createJobRegistry, resultBytesOf, type Job, type JobRegistry } from './registry.js';
import type { JobStore } from './store.js';

export type JobLimits = Pick<
  ResolvedOptions,
  'slots' | 'maxOutputBytes' | 'maxJobsPerPeer' | 'maxResultsPerPeer' | 'resultTtlMs' | 'absentPeerGraceMs'
>;

export interface JobServiceDeps extends JobLimits, JobSteps {
  readonly store: JobStore;
  readonly openArtifacts: (record: JobRecord) => Promise<StoredArtifacts>;
  /** Does nothing if there are none. */
  readonly removeArtifacts: (id: string) => Promise<void>;
}

export type JobService = Awaited<ReturnType<typeof createJobService>>;

/**
 * Loads the stored jobs. Jobs that waited or ran when their receiver stopped continue by themselves. Throws system
 * errors.
 */
export async function createJobService(deps: JobServiceDeps) {
  const { store, jobsDir, clock, log } = deps;
  const { maxJobsPerPeer, maxResultsPerPeer, resultTtlMs, absentPeerGraceMs } = deps;
  const registry = createJobRegistry({ store, removeRest, clock, log });
  const listeners = createEmitter<JobEvent>('jobs', log);
  const local = createLocalWork(deps.queue, clock, tellQueue);
  const view = createQueueSummary(registry, local, deps.queue, deps.slots);
  const prune = (id: DashboardId): Promise<void> => kept.prune(id);
  const lifecycle = createJobLifecycle({ ...deps, removeArtifacts, registry, listeners, tellQueue, prune });
  const drop = (id: DashboardId): void =>
    void stopAllOf(id, 'the dashboard was offline for longer than absentPeerGraceMs');
  const absent = watchAbsentPeers(absentPeerGraceMs, clock, drop);
  const closing = new AbortController();

  function tellQueue(): void {
    listeners.emit({ type: 'queue', status: view.status() });
  }

  function restore(records: readonly JobRecord[]): void {
    for (const job of registry.adopt(records)) {
      absent.expect(job.record.dashboardId);
      lifecycle.resume(job);
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
    for (const job of own) lifecycle.stop(job, message);
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
    await lifecycle.suspend();
  }

  function known(id: string): Job {
    const job = registry.get(id);
    if (job === undefined) throw new ReceiverError('NOT_FOUND', `unknown job ${quote(id)}`);
    return job;
  }

  function liveOf(dashboardId: DashboardId): Job[] {
    return registry.of(dashboardId).filter(({ record }) => !isTerminal(record));
  }

  restore(await store.load());
  const kept = startJobExpiry({ registry, resultTtlMs, maxResultsPerPeer, clock, log });
  const restoringLeft = restoreLeft();

  return {
    /**
     * Accepts a job while its bundle is still being unpacked. `acknowledge` is called once: before any event of the job,
     * with null, when the record survives a crash; or with the fault of the store, and then there is no job. When
     * `intake` resolves, the job queues, and every older job of the same peer, device and target is cancelled; when it
     * rejects, the job fails. `intake` must settle: `close()` waits for it. An unused bundle is discarded. Throws `STATE`
     * after `close()`.
     */
    submit(
      request: JobRequest,
      intake: Promise<StagedBundle>,
      acknowledge: Arrival['acknowledge'] = () => {},
    ): JobRecord {
      if (closing.signal.aborted) throw new ReceiverError('STATE', 'the build server is stopping');
      const refusal = liveOf(request.dashboardId).length >= maxJobsPerPeer ? tooMany(maxJobsPerPeer) : null;
      const job = registry.add(firstRecord(request, clock.wall(), registry));
      lifecycle.begin(job, { intake, acknowledge, refusal });
      return job.record;
    },
    /** Requests the end of a job. False for an unknown or ended one. Its terminal event is the confirmation. */
    cancel: (id: string): boolean => lifecycle.stop(registry.get(id), 'cancelled'),
    cancelByPeer: (dashboardId: DashboardId, peerJobId: string): boolean =>
      lifecycle.stop(registry.newest(dashboardId, peerJobId), 'cancelled'),
    /** Cancels all jobs of one peer, for instance when it is revoked. Resolves when they have ended. */
    cancelAllOf: (dashboardId: DashboardId): Promise<void> => stopAllOf(dashboardId, 'cancelled'),
    /** Call when a peer's session begins or ends. The jobs of an offline peer are cancelled after a grace time. */
    setPeerConnected: (dashboardId: DashboardId, connected: boolean): void =>
      absent.setConnected(dashboardId, connected),
    /** The newest job with this id of the peer's; skips those that a stop or crash of this server ended. */
    find(dashboardId: DashboardId, peerJobId: string): JobRecord | undefined {
      const job = registry.newest(dashboardId, peerJobId);
      return job && shownOf(job);
    },
    /** Oldest first. */
    list: (): readonly JobRecord[] => view.withTurns(registry.all().map(shownOf)),
    get(id: string): JobRecord | undefined {
      const job = registry.get(id);
      return job && view.withTurns([shownOf(job)])[0];
    },
    /** The ended jobs with a packed result, oldest first. Cheaper than `list`, which also reads the queue. */
    results: (): readonly JobRecord[] =>
      registry
        .all()
        .map(shownOf)
        .filter((record) => isTerminal(record) && record.artifacts !== null),
    /** The size of each peer's packed results, in bytes. Far cheaper than a walk through the list. */
    resultBytes: (): ReadonlyMap<DashboardId, number> => resultBytesOf(registry.all()),
    /** The space of each peer's bundles that wait or are built, in bytes. */
    stagedBytes(): ReadonlyMap<DashboardId, number> {
      const sums = new Map<DashboardId, number>();
      for (const { dashboardId, bundle } of registry.live().map(({ record }) => record)) {
        if (bundle !== null) sums.set(dashboardId, (sums.get(dashboardId) ?? 0) + spaceOf(bundle));
      }
      return sums;
    },
    /** Whether a job of the device waits or runs. Unlike `list`, its cost does not grow with the jobs of other peers. */
    isBusy: ({ dashboardId, device }: RemoteKey): boolean =>
      registry.of(dashboardId).some((job) => job.record.device === device && !isTerminal(shownOf(job))),
    enqueueLocal: local.enqueue,
    /** The host's own builds that wait for a slot or hold one, oldest first. */
    local: (): readonly LocalJob[] => view.withTurns(local.list()),
    queueStatus: view.status,
    /** Returns the function that unsubscribes. An error thrown by a listener is only logged. */
    subscribe: listeners.subscribe,
    /** Throws `NOT_FOUND` for an unknown job, `STATE` for one without artifacts. */
    async openArtifacts(id: string): Promise<StoredArtifacts> {
      const job = known(id);
      if (job.record.artifacts === null) throw new ReceiverError('STATE', 'the job has no artifacts');
      const stored = await deps.openArtifacts(job.record);
      const recordFetched = (): void => {
        kept.recordFetched(job);
        listeners.emit({ type: 'fetched', job: job.record });
      };
      return { ...stored, read: () => readThen(stored.read(), recordFetched) };
    },
    /** The job's output so far, up to 8 MiB. Throws `NOT_FOUND`. */
    readLog: async (id: string): Promise<string> => readJobLog(jobLogFile(jobsDir, known(id).record.id)),
    /** Deletes an ended job, its log and its artifacts. False for an unknown job or one that has not ended. */
    async remove(id: string): Promise<boolean> {
      const job = registry.get(id);
      if (job === undefined || !isTerminal(job.record)) return false;
      await job.ended;
      await registry.forget(id);
      return true;
    },
    /**
     * Stops all jobs and resolves when nothing of them runs. Those that waited, or ran for the first time, continue
     * when a service is created on the same store again.
     */
    suspend,
    /** Suspends, then closes the store. */
    async close(): Promise<void> {
      await suspend();
      await kept.stop();
      await registry.close();
      await store.close();
    },
  };
}

function shownOf({ record, shown }: Job): JobRecord {
  return shown ?? record;
}

/** Yields all of `source`, and calls `then` after the last chunk was consumed. */
async function* readThen(source: AsyncIterable<Buffer>, then: () => void): AsyncGenerator<Buffer> {
  yield* source;
  then();
}

function tooMany(most: number): Outcome {
  const message = `a dashboard can have at most ${most} waiting or running jobs; try again when one has ended`;
  return { to: 'failed', reason: 'resource', message };
}

function firstRecord(request: JobRequest, now: number, registry: JobRegistry): JobRecord {
  const configuration = formatConfiguration(request, request.file);
  // Later than all others, so that the order of jobs survives a restart.
  const createdAt = Math.max(now, 1 + registry.newestCreatedAt());
  // PlatformIO reports no total, so its progress is relative to the largest build before it.
  const counts = registry
    .of(request.dashboardId)
    .filter(({ record }) => record.configuration === configuration && record.progress.total === 0)
    .map(({ record }) => record.progress.compiled);
  return {
    ...request,
    ...{ id: randomUUID(), configuration, state: 'receiving', interrupted: false },
    ...{ failureReason: null, errorMessage: '', esphomeVersion: null, attempt: 1, artifacts: null },
    ...{ cached: false, resultKey: null, platform: null, bundle: null, requeued: false, waiting: null },
    ...{ createdAt, startedAt: null, finishedAt: null, fetchedAt: null },
    progress: startOfProgress(Math.max(0, ...counts)),
  };
}
