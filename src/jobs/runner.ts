/**
 * Runs one job that holds a slot: lease, configuration, compile, verification, packed result. Its ESPHome is chosen
 * before it queues, because that can mean an installation of minutes.
 *
 * Everything in the device's directory happens under one lease and ends before the lease is released. A result counts
 * only if the lease still held after packing; otherwise another builder can have written into it, and the work runs
 * once more from the start.
 */
import { ReceiverError, isReceiverError, quote } from '../errors.js';
import type { StagedBundle } from '../bundles/store.js';
import type { Lease } from '../locks/lease.js';
import type { RemoteKey } from '../paths/index.js';
import { build, type BuildDeps, type JobLease, type RunningJob } from './build.js';
import type { ChosenEsphome } from './choose-esphome.js';
import type { Outcome } from './record.js';
import { outcomeOf } from './outcome.js';
import { resultCacheOf, type ResultCacheDeps } from './result-cache.js';

/** The side effects of the runner besides those of a build. */
export interface RunnerDeps extends BuildDeps, ResultCacheDeps {
  /** The complete environment of the configuration's compile. */
  readonly composeEnvironment: (configuration: string) => Readonly<Record<string, string>>;
  /** Rejects with the signal's reason, or with `LOCK_TIMEOUT`. */
  readonly acquireLease: (request: LeaseRequest) => Promise<Lease>;
  /** Installs the bundle as `config/` of the device. */
  readonly installBundle: (staged: StagedBundle, key: RemoteKey) => Promise<void>;
  readonly cleanBuildDir: (configuration: string, lease: Pick<Lease, 'publish'>) => Promise<void>;
}

export interface LeaseRequest {
  readonly key: RemoteKey;
  /** For people and for the current owner's log. */
  readonly reason: string;
  readonly signal: AbortSignal;
  /** Called when another holder has it. */
  readonly onBlocked?: (() => void) | undefined;
}

const maxAttempts = 2;

/** Never rejects: a cancel is an outcome, too. `chosen` is null for a clean. */
export async function runJob(
  job: RunningJob,
  staged: StagedBundle,
  chosen: ChosenEsphome | null,
  deps: RunnerDeps,
): Promise<Outcome> {
  try {
    if (chosen === null) return await underLease(job, deps, (lease) => clean(job, lease, deps));
    const version = await chosen.confirm(job.signal);
    job.recordFacts({ esphomeVersion: version });
    for (const { directory, members } of staged.leftOut)
      job.output(`Left out of the bundle: ${quote(directory)}, ${members} members.\n`);
    const environment = deps.composeEnvironment(job.record.configuration);
    const compiler = { command: chosen.command, version, environment };
    const cache = resultCacheOf(job, { ...compiler, ...staged }, deps);
    const install = installOnce(job, staged, deps);
    return await underLease(job, deps, async (lease) => {
      const cached = await cache.reuse(lease);
      if (cached !== null) return cached;
      await install(lease);
      const outcome = await build(job, staged, compiler, lease, deps);
      return outcome.to === 'completed' ? { ...outcome, facts: { resultKey: cache.keyOf(lease) } } : outcome;
    });
  } catch (error) {
    return outcomeOf(error, { id: job.record.id, signal: job.signal }, deps.log);
  }
}

/** Does not run `esphome clean`, which deletes files that other devices share (ESPHome 2026.10). */
async function clean(job: RunningJob, lease: JobLease, deps: RunnerDeps): Promise<Outcome> {
  await deps.cleanBuildDir(job.record.configuration, lease);
  return { to: 'completed', artifacts: null };
}

/**
 * A bundle can be installed only once. Under a later lease it is still in place only if nobody held the lock in
 * between, which the fence number shows.
 */
function installOnce(
  job: RunningJob,
  staged: StagedBundle,
  deps: RunnerDeps,
): (lease: Lease) => Promise<void> {
  let installed: number | null = null;
  return async (lease) => {
    if (installed !== null && lease.fence !== installed + 1) {
      throw new ReceiverError('LOCK_LOST', 'another build server took over this device during the job');
    }
    if (installed === null) {
      await lease.publish(async () => {
        await deps.installBundle(staged, job.record);
        installed = lease.fence;
      });
    }
    installed = lease.fence;
  };
}

/**
 * Runs the work under the device's lease, and once more if the lease was lost: work under a lost lease does not count.
 * Only this function acquires a job's lease, handles its loss and releases it.
 */
async function underLease(
  job: RunningJob,
  deps: RunnerDeps,
  work: (lease: JobLease) => Promise<Outcome>,
): Promise<Outcome> {
  const { record, signal } = job;
  for (let attempt = 1; ; attempt += 1) {
    if (attempt > 1) job.recordFacts({ attempt });
    const lease = await deps.acquireLease({
      key: record,
      reason: `${record.target} ${record.id}`,
      signal,
      onBlocked: () => showBusyDevice(job),
    });
    if (job.record.waiting !== null) job.recordFacts({ waiting: null });
    const assertHeld = (): void => {
      const end = endOf(signal, lease);
      if (end !== null) throw end;
    };
    try {
      assertHeld();
      const outcome = await work({ ...lease, assertHeld });
      assertHeld();
      return outcome;
    } catch (error) {
      const cause = endOf(signal, lease, error) ?? error;
      if (attempt === maxAttempts || signal.aborted || !isReceiverError(cause, 'LOCK_LOST')) throw cause;
      deps.log.warn({ jobId: record.id, err: cause }, 'job lost its lock, running it again');
      job.output('The lock on the build directory was lost; running the job again.\n');
    } finally {
      await lease.release();
    }
  }
}

/** Why the job cannot continue under this lease; null while it can. */
function endOf(signal: AbortSignal, lease: Lease, cause: unknown = lease.signal.reason): unknown {
  if (signal.aborted) return signal.reason;
  if (!lease.signal.aborted) return null;
  return new ReceiverError('LOCK_LOST', 'the lock on the build directory was lost', {}, { cause });
}

/** Prints once per wait: `onBlocked` can be called for this process and for others. */
function showBusyDevice(job: RunningJob): void {
  if (job.record.waiting !== null) return;
  job.output('Waiting until the directory of this device is free.\n');
  job.recordFacts({ waiting: { for: 'device' } });
}
