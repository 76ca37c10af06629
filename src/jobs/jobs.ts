/**
 * All jobs of this server: taking them in, ending them, finding them again, telling who listens.
 *
 * Each job is one asynchronous function from its bundle to its end, and that function alone gives it its terminal
 * state, once, when nothing of it runs any more. Cancelling only asks: the function notices at its next step. So
 * there is no moment at which a job can end twice, or be completed and cancelled.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';

import type { StoredArtifacts } from '../artifacts/store.js';
import type { StagedBundle } from '../bundles/staged.js';
import { ReceiverError, messageOf } from '../errors.js';
import { readProgress, startOfProgress } from '../esphome/progress.js';
import type { Log } from '../log.js';
import { formatConfiguration, type DashboardId } from '../paths/index.js';
import { createBundleWait } from './bundle-wait.js';
import type { Jobs } from './contract.js';
import { createListeners, type QueueStatus } from './events.js';
import {
  advance,
  isSameWork,
  isTerminal,
  type JobRecord,
  type JobRequest,
  type Outcome,
  type Step,
} from './job.js';
import { jobLogFile, openJobLog, readJobLog, type JobLog } from './job-log.js';
import { openLedger, type Job } from './ledger.js';
import { cancelledBy, outcomeOf } from './outcome.js';
import type { JobQueue, Slot } from './queue.js';
import type { RunningJob } from './runner.js';
import type { JobStore } from './store.js';

export type { JobEvent, JobListener, QueueStatus } from './events.js';
export type { ArtifactFacts, StoredArtifacts } from '../artifacts/store.js';
export type { Jobs } from './contract.js';
export type { FailureReason, JobRecord, JobRequest, JobState } from './job.js';

export interface JobsDeps {
  readonly store: JobStore;
  readonly queue: JobQueue;
  /** The work of a job that has a slot. Never rejects; resolves when nothing of it runs any more. */
  readonly run: (job: RunningJob, staged: StagedBundle) => Promise<Outcome>;
  readonly openArtifacts: (record: JobRecord) => Promise<StoredArtifacts>;
  /** Nothing there is fine. */
  readonly removeArtifacts: (id: string) => Promise<void>;
  /** Where the logs are; must exist. */
  readonly jobsDir: string;
  /** Milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
  /** Most bytes of one job's output that are kept and told. Default: 8 MiB. */
  readonly maxOutputBytes?: number;
  /** Most jobs of one peer that have not ended; further ones fail. Default: 100. */
  readonly maxLivePerPeer?: number;
  /** Most ended jobs of one peer that are kept; the oldest go first. Default: 50. */
  readonly maxEndedPerPeer?: number;
  readonly log: Log;
}

/** Loads what is known from before; a job that had not ended then has failed as interrupted. Throws system errors. */
export async function createJobs(deps: JobsDeps): Promise<Jobs> {
  const { store, queue, jobsDir, log, now = Date.now, maxLivePerPeer = 100, maxEndedPerPeer = 50 } = deps;
  const ledger = await openLedger({ store, removeRest, maxEndedPerPeer, now, log });
  const listeners = createListeners(log);
  const bundles = createBundleWait(log);
  let isClosing = false;

  /** The whole life of one job. Never rejects. */
  async function live(job: Job, intake: Promise<StagedBundle>, isRefused: boolean): Promise<void> {
    const { signal } = job.controller;
    const output = openJobLog(jobLogFile(jobsDir, job.record.id), {
      ...(deps.maxOutputBytes !== undefined && { maxBytes: deps.maxOutputBytes }),
      onLine: (line) => listeners.tell({ type: 'output', job: job.record, line }),
      log,
    });
    let slot: Slot | undefined;
    let outcome: Outcome;
    try {
      const staged = await bundles.receive(intake, signal);
      try {
        if (isRefused) outcome = tooMany(maxLivePerPeer);
        else {
          await enter(job, { to: 'queued' });
          supersedeOlder(job);
          slot = await queue.enter(job.record.id, { signal });
          await enter(job, { to: 'running' });
          outcome = await deps.run(runningJob(job, output), staged);
        }
      } finally {
        await bundles.discard(staged);
      }
    } catch (error) {
      outcome = outcomeOf(error, signal, log);
    }
    await output.close();
    await end(job, outcome, slot);
  }

  async function enter(job: Job, step: Step): Promise<void> {
    take(job, step);
    await ledger.persist(job);
    tellState(job);
  }

  /** From the look at the signal to the new state there is no await: a cancel is before it, or too late. */
  async function end(job: Job, outcome: Outcome, slot: Slot | undefined): Promise<void> {
    const { signal } = job.controller;
    take(job, signal.aborted ? cancelledBy(signal) : outcome);
    const { id, state, dashboardId } = job.record;
    if (state !== 'completed') await removeArtifacts(id);
    await ledger.persist(job);
    slot?.release();
    tellState(job);
    await ledger.prune(dashboardId);
  }

  function take(job: Job, step: Step): void {
    const record = advance(job.record, step, now());
    if (record === null)
      throw new ReceiverError('STATE', `a job cannot go from ${job.record.state} to ${step.to}`);
    job.record = record;
  }

  function tellState({ record }: Job): void {
    listeners.tell({ type: 'state', job: record });
    listeners.tell({ type: 'queue', status: queueStatus() });
  }

  function runningJob(job: Job, output: JobLog): RunningJob {
    return {
      get record() {
        return job.record;
      },
      signal: job.controller.signal,
      output(line) {
        output.write(line);
        const before = job.record.progress;
        const progress = readProgress(before, line);
        if (progress === before) return;
        job.record = { ...job.record, progress };
        if (progress.phase === before.phase && progress.percent === before.percent) return;
        listeners.tell({ type: 'progress', job: job.record });
      },
      earlierResult: (key) =>
        ledger.all().findLast(({ record }) => record.state === 'completed' && record.resultKey === key)
          ?.record,
      note(facts) {
        job.record = { ...job.record, ...facts };
      },
    };
  }

  /** Older ones only: a job that was taken later is newer, even if its bundle was complete first. */
  function supersedeOlder(newer: Job): void {
    for (const job of ledger.live()) {
      if (job === newer) return;
      if (isSameWork(job.record, newer.record)) stop(job, 'replaced by a newer job for the same device');
    }
  }

  function stop(job: Job | undefined, message: string): boolean {
    if (job === undefined || isTerminal(job.record)) return false;
    job.controller.abort(new ReceiverError('CANCELLED', message));
    return true;
  }

  async function removeRest(id: string): Promise<void> {
    await removeArtifacts(id);
    await rm(jobLogFile(jobsDir, id), { force: true });
  }

  async function removeArtifacts(id: string): Promise<void> {
    await deps.removeArtifacts(id).catch((error: unknown) => {
      log.error({ id, error: messageOf(error) }, 'artifacts could not be removed');
    });
  }

  function known(id: string): JobRecord {
    const job = ledger.get(id);
    if (job === undefined) throw new ReceiverError('NOT_FOUND', 'there is no such job');
    return job.record;
  }

  function queueStatus(): QueueStatus {
    const states = ledger.live().map(({ record }) => record.state);
    const running = states.includes('running');
    const queue_depth = states.filter((state) => state === 'queued').length;
    return { idle: !running && queue_depth === 0, running, queue_depth };
  }

  function liveOf(dashboardId: DashboardId): Job[] {
    return ledger.live().filter(({ record }) => record.dashboardId === dashboardId);
  }

  return {
    submit(request, intake) {
      if (isClosing) throw new ReceiverError('STATE', 'the build server is stopping');
      const isRefused = liveOf(request.dashboardId).length >= maxLivePerPeer;
      const job = ledger.add(firstRecord(request, now(), ledger.all()));
      job.ended = live(job, intake, isRefused);
      return job.record;
    },
    cancel: (id) => stop(ledger.get(id), 'cancelled'),
    cancelByPeer: (dashboardId, peerJobId) => stop(ledger.newest(dashboardId, peerJobId), 'cancelled'),
    async cancelAllOf(dashboardId) {
      const own = liveOf(dashboardId);
      for (const job of own) stop(job, 'cancelled');
      await Promise.all(own.map((job) => job.ended));
    },
    find: (dashboardId, peerJobId) => ledger.newest(dashboardId, peerJobId)?.record,
    list: () => ledger.all().map(({ record }) => record),
    get: (id) => ledger.get(id)?.record,
    queueStatus,
    subscribe: (listener) => listeners.add(listener),
    async openArtifacts(id) {
      const record = known(id);
      if (record.artifacts === null) throw new ReceiverError('STATE', 'the job has no artifacts');
      return deps.openArtifacts(record);
    },
    readLog: async (id) => readJobLog(jobLogFile(jobsDir, known(id).id)),
    async remove(id) {
      const job = ledger.get(id);
      if (job === undefined || !isTerminal(job.record)) return false;
      await job.ended;
      await ledger.forget(id);
      return true;
    },
    async close() {
      isClosing = true;
      for (const job of ledger.live()) {
        job.record = { ...job.record, interrupted: true };
        stop(job, 'the build server is stopping');
      }
      await Promise.all(ledger.all().map((job) => job.ended));
      await bundles.settled();
    },
  };
}

function tooMany(most: number): Outcome {
  const message = `at most ${most} jobs of one dashboard may wait or run; build again when one has ended`;
  return { to: 'failed', reason: 'resource', message };
}

function firstRecord(request: JobRequest, createdAt: number, earlier: readonly Job[]): JobRecord {
  const configuration = formatConfiguration(request, request.file);
  // PlatformIO names no total, so a build of it is measured by the largest before it.
  const counts = earlier
    .filter(({ record }) => record.configuration === configuration && record.progress.total === 0)
    .map(({ record }) => record.progress.compiled);
  return {
    ...request,
    ...{ id: randomUUID(), configuration, state: 'receiving', interrupted: false },
    ...{ failureReason: null, errorMessage: '', esphomeVersion: null, attempt: 1, artifacts: null },
    ...{ cached: false, resultKey: null },
    ...{ createdAt, startedAt: null, finishedAt: null },
    progress: startOfProgress(Math.max(0, ...counts)),
  };
}
