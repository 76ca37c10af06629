/**
 * One job's work: its ESPHome is chosen before it queues, for that may be an installation of minutes; all else is done
 * once it holds a slot: lease, configuration in place, compile, proof, packed result.
 *
 * Everything in the device's directory happens under one lease and ends before the lease is given back. A result
 * counts only if the lease was still ours after it was packed; otherwise another builder may have written into it,
 * and the work is done once more from the start.
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

/** What the runner does to the world besides. */
export interface RunnerDeps extends BuildDeps, ResultCacheDeps {
  /** The complete environment of the configuration's compile. */
  readonly composeEnvironment: (configuration: string) => Readonly<Record<string, string>>;
  /** Rejects with the signal's reason, or with `LOCK_TIMEOUT`. */
  readonly acquireLease: (wish: LeaseRequest) => Promise<Lease>;
  /** Installs the bundle as `config/` of the device. */
  readonly installBundle: (staged: StagedBundle, key: RemoteKey) => Promise<void>;
  readonly cleanBuildDir: (configuration: string, lease: Pick<Lease, 'publish'>) => Promise<void>;
}

export interface LeaseRequest {
  readonly key: RemoteKey;
  /** For people and for the present owner's log. */
  readonly reason: string;
  readonly signal: AbortSignal;
  /** Called when somebody else has it. */
  readonly onBlocked?: (() => void) | undefined;
}

const maxAttempts = 2;

/** Never rejects. A job that was cancelled meanwhile comes back as cancelled. `chosen` is null for a clean. */
export async function runJob(
  job: RunningJob,
  staged: StagedBundle,
  chosen: ChosenEsphome | null,
  deps: RunnerDeps,
): Promise<Outcome> {
  try {
    if (chosen === null) return await underLease(job, deps, (lease) => clean(job, lease, deps));
    const version = await chosen.confirm(job.signal);
    job.note({ esphomeVersion: version });
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

/** Never `esphome clean`: it wipes what other devices share (ESPHome 2026.10). */
async function clean(job: RunningJob, lease: JobLease, deps: RunnerDeps): Promise<Outcome> {
  await deps.cleanBuildDir(job.record.configuration, lease);
  return { to: 'completed', artifacts: null };
}

/**
 * A bundle can be installed once. Under a later lease it is still in its place only if nobody held the lock in
 * between, which the fence tells.
 */
function installOnce(
  job: RunningJob,
  staged: StagedBundle,
  deps: RunnerDeps,
): (lease: Lease) => Promise<void> {
  let installed: number | null = null;
  return async (lease) => {
    if (installed !== null && lease.fence !== installed + 1) {
      throw new ReceiverError('LOCK_LOST', 'another build server has taken over this device meanwhile');
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
 * Runs the work under the device's lease, once more when the lease was lost meanwhile: what was done under a lost lease
 * does not count. The one place where a job gets its lease, learns of its loss and gives it back.
 */
async function underLease(
  job: RunningJob,
  deps: RunnerDeps,
  work: (lease: JobLease) => Promise<Outcome>,
): Promise<Outcome> {
  const { record, signal } = job;
  for (let attempt = 1; ; attempt += 1) {
    if (attempt > 1) job.note({ attempt });
    const lease = await deps.acquireLease({
      key: record,
      reason: `${record.target} ${record.id}`,
      signal,
      onBlocked: () => showBusyDevice(job),
    });
    if (job.record.waiting !== null) job.note({ waiting: null });
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
      job.output('The lock on the build directory was lost; the job is run again.\n');
    } finally {
      await lease.release();
    }
  }
}

/** Why the job may not go on under this lease; null while it may. */
function endOf(signal: AbortSignal, lease: Lease, cause: unknown = lease.signal.reason): unknown {
  if (signal.aborted) return signal.reason;
  if (!lease.signal.aborted) return null;
  return new ReceiverError('LOCK_LOST', 'the lock on the build directory was lost', {}, { cause });
}

/** Once for each wait: within this process and among processes it may be told twice. */
function showBusyDevice(job: RunningJob): void {
  if (job.record.waiting !== null) return;
  job.output('Waiting until the directory of this device is free.\n');
  job.note({ waiting: { for: 'device' } });
}
