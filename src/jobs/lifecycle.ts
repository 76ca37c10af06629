/**
 * The steps of a job, from its bundle to its end or to the stop of this receiver.
 *
 * Each job is one asynchronous function, and only that function sets the terminal state, once, when nothing of the job
 * runs. A cancel is a request, which the function sees at its next step. So a job can never end twice, or be both
 * completed and cancelled. A stopping receiver makes the same request, but then the job does not end: its record stays
 * as a restart needs it.
 */
import type { Clock } from '../async/clock.js';
import type { Emitter } from '../async/signals.js';
import { type StagedBundle, factsOf, type BundleStore, createBundleWait } from '../bundles/store.js';
import { lostBundle } from '../bundles/install.js';
import { ReceiverError } from '../errors.js';
import { readProgress } from '../esphome/progress.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { RunningJob } from './build.js';
import type { ChosenEsphome } from './choose-esphome.js';
import type { QueueStatus } from './local-work.js';
import { jobLogFile, openJobLog, type JobLog } from './log.js';
import { cancelledBy, endFactsOf, namesOf, outcomeOf } from './outcome.js';
import type { JobQueue, Slot } from './queue.js';
import { advance, isSameWork, isTerminal, type JobRecord, type Outcome, type Step } from './record.js';
import { type Job, type JobRegistry, type StoreFault, afterStop } from './registry.js';
import type { Shortage } from './waiting.js';

/**
 * States are reported in order, each once, and a terminal one only when nothing of the job runs and its slot is free. A
 * job that was running when its server stopped is reported as `queued` again.
 */
export type JobEvent =
  | { readonly type: 'state'; readonly job: JobRecord }
  /** It starts or stops waiting for something other than a slot. Not emitted when its state changes as well. */
  | { readonly type: 'waiting'; readonly job: JobRecord }
  | { readonly type: 'progress'; readonly job: JobRecord }
  /** One line with its terminator, as the build printed it. Never after the terminal state. */
  | { readonly type: 'output'; readonly job: JobRecord; readonly line: string }
  | { readonly type: 'fetched'; readonly job: JobRecord }
  | { readonly type: 'queue'; readonly status: QueueStatus };

export interface JobSteps {
  readonly queue: JobQueue;
  readonly bundles: BundleStore;
  /** Chooses what a job needs before it queues; can take minutes. Null for a clean. An error ends the job. */
  readonly choose: (job: RunningJob) => Promise<ChosenEsphome | null>;
  /** Runs a job that has a slot. Never rejects; resolves when nothing of it runs. */
  readonly run: (job: RunningJob, staged: StagedBundle, chosen: ChosenEsphome | null) => Promise<Outcome>;
  /** The directory of the logs; must exist. */
  readonly jobsDir: string;
  readonly maxOutputBytes: number;
  /** See {@link patiently}. */
  readonly pausesMs?: readonly number[] | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

interface JobLifecycleDeps extends JobSteps {
  readonly registry: JobRegistry;
  readonly listeners: Pick<Emitter<JobEvent>, 'emit'>;
  readonly tellQueue: () => void;
  readonly removeArtifacts: (id: string) => Promise<void>;
  /** Removes a peer's ended jobs beyond its limits. Never rejects. */
  readonly prune: (dashboardId: DashboardId) => Promise<void>;
}

export interface Arrival {
  readonly intake: Promise<StagedBundle>;
  /** Called with null when the job's record is stored, else with the fault; there is no job then. */
  readonly acknowledge: (fault: StoreFault | null) => void;
  /** The outcome of a refused job, applied once its bundle is complete. */
  readonly refusal: Outcome | null;
}

/** The resources a job holds and must release. */
interface Held {
  staged: StagedBundle | null;
  chosen: ChosenEsphome | null;
  slot: Slot | null;
  output: JobLog | null;
  /** The write of the running state. */
  recorded: Promise<unknown> | null;
}

/** The abort reason of a job that continues after the restart. */
const stopping = new ReceiverError('CANCELLED', 'the build server is stopping');

export function createJobLifecycle(deps: JobLifecycleDeps) {
  const { registry, listeners, tellQueue, queue, jobsDir, clock, log } = deps;
  const bundles = createBundleWait(deps.bundles, log, deps.pausesMs);
  let isClosing = false;

  /** What is not on disk is not acknowledged, because a crash would lose it. Never rejects. */
  async function admit(job: Job, arrival: Arrival): Promise<void> {
    const fault = await registry.persist(job);
    if (fault === null) return runToEnd(job, arrival);
    await registry.withdraw(job);
    arrival.acknowledge(fault);
    await bundles.discardLater(arrival.intake);
  }

  /** Runs one job from its arrival, or from a restart, to its end. Never rejects. */
  async function runToEnd(job: Job, arrival?: Arrival): Promise<void> {
    const { signal } = job.controller;
    const held: Held = { staged: null, chosen: null, slot: null, output: null, recorded: null };
    let outcome: Outcome;
    try {
      if (arrival) await receiveBundle(job, arrival, held);
      outcome = arrival?.refusal ?? (await startWork(job, held));
    } catch (error) {
      outcome = outcomeOf(error, { id: job.record.id, signal }, log);
    }
    await held.output?.close();
    await finishJob(job, outcome, held);
  }

  /** Resolves when the bundle is complete. */
  async function receiveBundle(
    job: Job,
    { intake, acknowledge, refusal }: Arrival,
    held: Held,
  ): Promise<void> {
    acknowledge(null);
    log.info({ ...namesOf(job.record), peerJobId: job.record.peerJobId }, 'job accepted');
    held.staged = await bundles.receive(intake, job.controller.signal);
    if (refusal) return;
    const kept = await bundles.keep(job.record.id, held.staged, job.controller.signal);
    held.staged = kept ?? held.staged;
    recordStep(job, { to: 'queued', bundle: kept && factsOf(kept) });
    // From now on the record counts it.
    kept?.room?.release();
    // Not awaited: the awaited write of the next step comes after it.
    void registry.persist(job);
    tellState(job);
    supersedeOlder(job);
    if (isClosing) job.controller.abort(stopping);
  }

  async function startWork(job: Job, held: Held): Promise<Outcome> {
    const running = runningJob(job, held);
    const { id, dashboardId: peer, target } = job.record;
    const { signal } = job.controller;
    held.chosen = await deps.choose(running);
    const onShort = (shortage: Shortage): void => showShortage(running, shortage);
    held.slot = await queue.enter(id, { peer, target, signal, onShort });
    held.staged ??= await deps.bundles.find(job.record);
    if (held.staged === null) throw lostBundle(id);
    recordStep(job, { to: 'running' });
    const { createdAt, startedAt, esphomeVersion } = job.record;
    const waitedMs = (startedAt ?? createdAt) - createdAt;
    log.info({ ...namesOf(job.record), esphomeVersion, waitedMs }, 'job started');
    held.recorded = registry.persist(job);
    tellState(job);
    if (job.record.requeued) running.output('The build server restarted; running the job again.\n');
    return deps.run(running, held.staged, held.chosen);
  }

  /** There is no await between the check of the signal and the new state: a cancel comes before it, or too late. */
  async function finishJob(job: Job, outcome: Outcome, held: Held): Promise<void> {
    const { signal } = job.controller;
    const { state: before } = job.record;
    job.shown = job.record;
    if (signal.reason === stopping && outcome.to === 'cancelled')
      job.record = afterStop(job.record, clock.wall());
    else recordStep(job, signal.aborted && signal.reason !== stopping ? cancelledBy(signal) : outcome);
    await recordAndRelease(job, held);
    job.shown = null;
    if (job.record.state === before) return;
    if (isTerminal(job.record)) log.info(endFactsOf(job.record), 'job ended');
    else log.info(namesOf(job.record), 'job queued again');
    tellState(job);
    await deps.prune(job.record.dashboardId);
  }

  async function recordAndRelease(job: Job, { staged, chosen, slot }: Held): Promise<void> {
    const { id, state } = job.record;
    const hasEnded = isTerminal(job.record);
    if (hasEnded && state !== 'completed') await deps.removeArtifacts(id);
    // Before the bundle is removed: a crash in between must not leave a queued job without a bundle.
    const fault = await registry.persist(job);
    const discard = (): Promise<void> => (staged ? bundles.discard(staged) : bundles.remove(id));
    if (!hasEnded || fault !== null) await staged?.settled();
    else await discard();
    if (hasEnded && fault !== null) void registry.saved(job).then(discard);
    await chosen?.release();
    slot?.release();
  }

  function recordStep(job: Job, step: Step): void {
    const record = advance(job.record, step, clock.wall());
    if (record === null)
      throw new ReceiverError('STATE', `invalid job step from ${job.record.state} to ${step.to}`);
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
      recordFacts(facts) {
        job.record = { ...job.record, ...facts };
        if (facts.platform) job.record = registry.withExpected(job.record);
        if (facts.waiting !== undefined) listeners.emit({ type: 'waiting', job: job.record });
      },
    };
  }

  /** Stops older jobs only: a job that was accepted later is newer, even if its bundle was complete first. */
  function supersedeOlder(newer: Job): void {
    for (const job of registry.of(newer.record.dashboardId)) {
      if (job === newer) return;
      if (isSameWork(job.record, newer.record)) stop(job, 'replaced by a newer job for the same device');
    }
  }

  /** Requests that a job end as cancelled. False for an unknown or ended one. */
  function stop(job: Job | undefined, message: string): boolean {
    if (job === undefined || isTerminal(job.record)) return false;
    job.controller.abort(new ReceiverError('CANCELLED', message));
    return true;
  }

  return {
    /** Starts a job that was just accepted. */
    begin(job: Job, arrival: Arrival): void {
      // Handled once the record is stored.
      arrival.intake.catch(() => {});
      job.ended = admit(job, arrival);
    },
    /** Continues a job from before a restart; one that the restart ended is only cleaned up. */
    resume(job: Job): void {
      job.ended = isTerminal(job.record)
        ? recordAndRelease(job, { staged: null, chosen: null, slot: null, output: null, recorded: null })
        : runToEnd(job);
    },
    stop,
    /** Stops all jobs for a restart. Resolves when nothing of them runs. */
    async suspend(): Promise<void> {
      isClosing = true;
      // Jobs that are still receiving stop by themselves when their bundle is complete.
      for (const { record, controller } of registry.live()) {
        if (record.state !== 'receiving') controller.abort(stopping);
      }
      await Promise.all(registry.all().map((job) => job.ended));
      await bundles.settled();
    },
  };
}

/** The peer learns which resource is short, but no figures. */
function showShortage(job: RunningJob, waiting: Shortage): void {
  const what = waiting.for === 'disk' ? 'disk space' : 'memory';
  if (job.record.waiting === null) job.output(`Waiting until the build server has more free ${what}.\n`);
  job.recordFacts({ waiting });
}
