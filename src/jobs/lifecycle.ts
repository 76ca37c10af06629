/**
 * What a job goes through, from its bundle to its end or to the end of this receiver.
 *
 * Each job is one asynchronous function, and that function alone gives it its terminal state, once, when nothing of it
 * runs any more. Cancelling only asks: the function notices at its next step. So there is no moment at which a job can
 * end twice, or be completed and cancelled. A receiver that stops asks in the same way, and then the job has no end:
 * its record stays as a restart wants to find it.
 */
import type { Clock } from '../async/clock.js';
import type { Emitter } from '../async/emitter.js';
import { type StagedBundle, factsOf, type BundleStore, createBundleWait } from '../bundles/store.js';
import { ReceiverError } from '../errors.js';
import { readProgress } from '../esphome/progress.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { RunningJob } from './build.js';
import type { ChosenEsphome } from './choose-esphome.js';
import type { JobEvent } from './job-service.js';
import { jobLogFile, openJobLog, type JobLog } from './log.js';
import { cancelledBy, outcomeOf } from './outcome.js';
import type { JobQueue, Slot } from './queue.js';
import { advance, isSameWork, isTerminal, type JobRecord, type Outcome, type Step } from './record.js';
import { type Job, type JobRegistry, afterStop } from './registry.js';
import type { Shortage } from './waiting.js';

export interface JobLifecycle {
  /** Leads a job that has just been taken in. */
  begin(job: Job, arrival: Arrival): void;
  /** Leads a job on that was there before a restart; one that the restart has ended is only cleared away. */
  resume(job: Job): void;
  /** Asks a job to end as cancelled. False when there is none, or it has ended. */
  stop(job: Job | undefined, message: string): boolean;
  /** Stops all jobs for a restart. Resolves when nothing of them runs. */
  suspend(): Promise<void>;
}

export interface JobLifecycleDeps {
  readonly registry: JobRegistry;
  readonly listeners: Pick<Emitter<JobEvent>, 'emit'>;
  /** Tells the listeners how long the queue is now. */
  readonly tellQueue: () => void;
  readonly queue: JobQueue;
  readonly bundles: BundleStore;
  /** What a job needs before it queues, for however long; null for nothing. What it throws ends the job. */
  readonly choose: (job: RunningJob) => Promise<ChosenEsphome | null>;
  /** The work of a job that has a slot. Never rejects; resolves when nothing of it runs any more. */
  readonly run: (job: RunningJob, staged: StagedBundle, chosen: ChosenEsphome | null) => Promise<Outcome>;
  /** Never rejects. */
  readonly removeArtifacts: (id: string) => Promise<void>;
  /** Lets go of ended jobs of the peer that are too many. Never rejects. */
  readonly prune: (dashboardId: DashboardId) => Promise<void>;
  readonly jobsDir: string;
  readonly maxOutputBytes: number;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Arrival {
  readonly intake: Promise<StagedBundle>;
  /** Called when the job's record is stored, or the store has refused. */
  readonly acknowledge: () => void;
  /** How the job is to end once its bundle is whole, if it is not wanted. */
  readonly refusal: Outcome | null;
}

/** What a job has and must give back. */
interface Held {
  staged: StagedBundle | null;
  chosen: ChosenEsphome | null;
  slot: Slot | null;
  output: JobLog | null;
  /** The write of the record as one that runs. */
  recorded: Promise<unknown> | null;
}

/** Why a job is stopped that is to go on after the restart. */
const stopping = new ReceiverError('CANCELLED', 'the build server is stopping');

const lostBundle: Outcome = {
  ...{ to: 'failed', reason: 'internal' },
  message: 'the bundle of this job was lost when the build server was restarted',
};

export function createJobLifecycle(deps: JobLifecycleDeps): JobLifecycle {
  const { registry, listeners, tellQueue, queue, jobsDir, clock, log } = deps;
  const bundles = createBundleWait(deps.bundles, log);
  let isClosing = false;

  /** The whole life of one job, or what a restart has left of it. Never rejects. */
  async function live(job: Job, arrival?: Arrival): Promise<void> {
    const { signal } = job.controller;
    const held: Held = { staged: null, chosen: null, slot: null, output: null, recorded: null };
    let outcome: Outcome;
    try {
      if (arrival) await arrive(job, arrival, held);
      outcome = arrival?.refusal ?? (await work(job, held));
    } catch (error) {
      outcome = outcomeOf(error, { id: job.record.id, signal }, log);
    }
    await held.output?.close();
    await leave(job, outcome, held);
  }

  /** Until the bundle is whole. The peer's acknowledgement waits for the record, and for nothing else. */
  async function arrive(job: Job, { intake, acknowledge, refusal }: Arrival, held: Held): Promise<void> {
    const isStored = await registry.persist(job);
    acknowledge();
    log.info({ ...namesOf(job.record), peerJobId: job.record.peerJobId }, 'job accepted');
    held.staged = await bundles.receive(intake, job.controller.signal);
    if (refusal) return;
    const kept = isStored ? await bundles.keep(job.record.id, held.staged) : null;
    held.staged = kept ?? held.staged;
    take(job, { to: 'queued', bundle: kept && factsOf(kept) });
    // Not waited for: the write of the next step comes after it, and is.
    void registry.persist(job);
    tellState(job);
    supersedeOlder(job);
    if (isClosing) job.controller.abort(stopping);
  }

  async function work(job: Job, held: Held): Promise<Outcome> {
    const running = runningJob(job, held);
    const { id, dashboardId: peer, target } = job.record;
    const { signal } = job.controller;
    held.chosen = await deps.choose(running);
    const onShort = (shortage: Shortage): void => showShortage(running, shortage);
    held.slot = await queue.enter(id, { peer, target, signal, onShort });
    held.staged ??= await deps.bundles.find(job.record);
    if (held.staged === null) {
      job.record = { ...job.record, interrupted: true };
      return lostBundle;
    }
    take(job, { to: 'running' });
    const { createdAt, startedAt, esphomeVersion } = job.record;
    const waitedMs = (startedAt ?? createdAt) - createdAt;
    log.info({ ...namesOf(job.record), esphomeVersion, waitedMs }, 'job started');
    held.recorded = registry.persist(job);
    tellState(job);
    if (job.record.requeued) running.output('The build server was restarted; the job is run again.\n');
    return deps.run(running, held.staged, held.chosen);
  }

  /** From the look at the signal to the new state there is no await: a cancel is before it, or too late. */
  async function leave(job: Job, outcome: Outcome, held: Held): Promise<void> {
    const { signal } = job.controller;
    const { state: before } = job.record;
    job.shown = job.record;
    if (signal.reason === stopping && outcome.to === 'cancelled')
      job.record = afterStop(job.record, clock.wall());
    else take(job, signal.aborted && signal.reason !== stopping ? cancelledBy(signal) : outcome);
    await settle(job, held);
    job.shown = null;
    if (job.record.state === before) return;
    if (isTerminal(job.record)) logEnd(job.record);
    else log.info(namesOf(job.record), 'job queued again');
    tellState(job);
    await deps.prune(job.record.dashboardId);
  }

  async function settle(job: Job, { staged, chosen, slot }: Held): Promise<void> {
    const { id, state } = job.record;
    const hasEnded = isTerminal(job.record);
    if (hasEnded && state !== 'completed') await deps.removeArtifacts(id);
    // Before the bundle goes: a crash in between must not leave a job that waits for nothing.
    await registry.persist(job);
    if (!hasEnded) await staged?.settled();
    else if (staged) await bundles.discard(staged);
    else await bundles.remove(id);
    await chosen?.release();
    slot?.release();
  }

  function logEnd(record: JobRecord): void {
    const { state, failureReason, errorMessage, cached, createdAt, startedAt, finishedAt } = record;
    const endedAt = finishedAt ?? clock.wall();
    const durations = {
      waitedMs: (startedAt ?? endedAt) - createdAt,
      ranMs: startedAt === null ? 0 : endedAt - startedAt,
    };
    const why = errorMessage === '' ? {} : { reason: failureReason, message: errorMessage };
    log.info({ ...namesOf(record), state, ...why, cached, ...durations }, 'job ended');
  }

  function take(job: Job, step: Step): void {
    const record = advance(job.record, step, clock.wall());
    if (record === null)
      throw new ReceiverError('STATE', `a job cannot go from ${job.record.state} to ${step.to}`);
    job.record = record;
  }

  function tellState({ record }: Job): void {
    listeners.emit({ type: 'state', job: record });
    tellQueue();
  }

  function logOf(job: Job): JobLog {
    return openJobLog(jobLogFile(jobsDir, job.record.id), {
      maxOutputBytes: deps.maxOutputBytes,
      onLine: (line) => listeners.emit({ type: 'output', job: job.record, line }),
      log,
    });
  }

  function runningJob(job: Job, held: Held): RunningJob {
    return {
      get record() {
        return job.record;
      },
      signal: job.controller.signal,
      recorded: async () => void (await held.recorded),
      output(line) {
        held.output ??= logOf(job);
        held.output.write(line);
        const before = job.record.progress;
        const progress = readProgress(before, line);
        if (progress === before) return;
        job.record = { ...job.record, progress };
        if (progress.phase === before.phase && progress.percent === before.percent) return;
        listeners.emit({ type: 'progress', job: job.record });
      },
      earlierResult: (key) =>
        registry
          .of(job.record.dashboardId)
          .findLast(({ record }) => record.state === 'completed' && record.resultKey === key)?.record,
      note(facts) {
        job.record = { ...job.record, ...facts };
        if (facts.waiting !== undefined) listeners.emit({ type: 'waiting', job: job.record });
      },
    };
  }

  /** Older ones only: a job that was taken later is newer, even if its bundle was complete first. */
  function supersedeOlder(newer: Job): void {
    for (const job of registry.of(newer.record.dashboardId)) {
      if (job === newer) return;
      if (isSameWork(job.record, newer.record)) stop(job, 'replaced by a newer job for the same device');
    }
  }

  function stop(job: Job | undefined, message: string): boolean {
    if (job === undefined || isTerminal(job.record)) return false;
    job.controller.abort(new ReceiverError('CANCELLED', message));
    return true;
  }

  return {
    begin(job, arrival) {
      // Looked at once the record is stored.
      arrival.intake.catch(() => {});
      job.ended = live(job, arrival);
    },
    resume(job) {
      job.ended = isTerminal(job.record)
        ? settle(job, { staged: null, chosen: null, slot: null, output: null, recorded: null })
        : live(job);
    },
    stop,
    async suspend() {
      isClosing = true;
      // What still arrives stops by itself when its bundle is whole.
      for (const { record, controller } of registry.live()) {
        if (record.state !== 'receiving') controller.abort(stopping);
      }
      await Promise.all(registry.all().map((job) => job.ended));
      await bundles.settled();
    },
  };
}

/** What a line of the log says of every job. */
function namesOf({ id, dashboardId, peerLabel, file, target }: JobRecord): Readonly<Record<string, string>> {
  return { jobId: id, dashboardId, label: peerLabel, file, target };
}

/** Its peer is told what is short, and not of how much. */
function showShortage(job: RunningJob, waiting: Shortage): void {
  const what = waiting.for === 'disk' ? 'disk space' : 'memory';
  if (job.record.waiting === null) job.output(`Waiting until the build server has more free ${what}.\n`);
  job.note({ waiting });
}
