/**
 * One job's work: its ESPHome is chosen before it queues, for that may be an installation of minutes; all else is done
 * once it holds a slot: lease, configuration in place, compile, proof, packed result.
 *
 * Everything in the device's directory happens under one lease and ends before the lease is given back. A result
 * counts only if the lease was still ours after it was packed; otherwise another builder may have written into it,
 * and the work is done once more from the start.
 */
import { ReceiverError, isReceiverError } from '../errors.js';
import type { ArtifactFacts } from '../artifacts/store.js';
import type { StagedBundle } from '../bundles/staged.js';
import type { BuildDir } from '../compile/build-dir.js';
import { endingError, type CompileRequest, type CompileResult } from '../compile/compile.js';
import { precheckTimeoutMs, type PrecheckRequest } from '../compile/precheck.js';
import { judge, leavesDamage, type CompileLimits } from '../compile/verdict.js';
import { compileArgs } from '../esphome/command.js';
import type { Lease } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { Paths, RemoteKey } from '../paths/index.js';
import type { ChooseEsphome, ChosenEsphome } from './choose-esphome.js';
import type { JobRecord, Outcome } from './job.js';
import { outcomeOf } from './outcome.js';
import { resultCacheOf, type CachedJob, type ResultCacheDeps } from './result-cache.js';
import type { Tools } from './tools.js';
import type { Waiting } from './waiting.js';

/** What the runner does to the world; each can be replaced, so that a test forces every moment. */
export interface RunnerDeps extends ResultCacheDeps {
  readonly paths: Paths;
  readonly chooseEsphome: ChooseEsphome;
  /** The complete environment of the configuration's compile. */
  readonly composeEnvironment: (configuration: string) => Readonly<Record<string, string>>;
  /** Rejects with the signal's reason, or with `LOCK_TIMEOUT`. */
  readonly acquireLease: (wish: LeaseWish) => Promise<Lease>;
  /** Installs the bundle as `config/` of the device. */
  readonly swapIn: (staged: StagedBundle, key: RemoteKey) => Promise<void>;
  readonly openBuildDir: (configuration: string, env: Readonly<Record<string, string>>) => Promise<BuildDir>;
  readonly cleanBuildDir: (configuration: string) => Promise<void>;
  readonly precheck: (request: PrecheckRequest) => Promise<CompileResult | null>;
  readonly compile: (request: CompileRequest) => Promise<CompileResult>;
  /** Collects, packs and keeps the result under the job's id. */
  readonly storeArtifacts: (id: string, configuration: string) => Promise<ArtifactFacts>;
  readonly tools: Tools;
  /** Longest time of one compile, in milliseconds. */
  readonly compileTimeoutMs: number;
  /** Longest time in which it prints nothing, in milliseconds. */
  readonly silenceTimeoutMs: number;
}

export interface LeaseWish {
  readonly key: RemoteKey;
  /** For people and for the present owner's log. */
  readonly reason: string;
  readonly signal: AbortSignal;
  /** Called when somebody else has it. */
  readonly onBlocked?: (() => void) | undefined;
}

/** The job as its runner sees it. */
export interface RunningJob extends CachedJob {
  readonly signal: AbortSignal;
  /** Notes facts in the record. */
  note(facts: Partial<Pick<JobRecord, 'esphomeVersion' | 'attempt' | 'waiting'>>): void;
}

interface Compiler extends Pick<ChosenEsphome, 'command' | 'version'> {
  readonly environment: Readonly<Record<string, string>>;
}

const maxAttempts = 2;

/** What a job compiles with, to be released by the caller; null for a clean. Throws as {@link ChooseEsphome} does. */
export async function chooseFor(
  job: RunningJob,
  { chooseEsphome }: Pick<RunnerDeps, 'chooseEsphome'>,
): Promise<ChosenEsphome | null> {
  const { target, targetVersion } = job.record;
  if (target === 'clean') return null;
  const chosen = await chooseEsphome(targetVersion, job.signal, (line) => job.output(line));
  job.note({ esphomeVersion: chosen.version });
  return chosen;
}

/** Never rejects. A job that was cancelled meanwhile comes back as cancelled. `chosen` is null for a clean. */
export async function runJob(
  job: RunningJob,
  staged: StagedBundle,
  chosen: ChosenEsphome | null,
  deps: RunnerDeps,
): Promise<Outcome> {
  try {
    if (chosen === null) return await againIfLost(job, deps, () => clean(job, deps));
    const version = await chosen.confirm(job.signal);
    job.note({ esphomeVersion: version });
    const environment = deps.composeEnvironment(job.record.configuration);
    const compiler = { command: chosen.command, version, environment };
    const cache = resultCacheOf(job, { ...compiler, ...staged }, deps);
    const install = installOnce(job, staged, deps);
    return await againIfLost(job, deps, async (lease) => {
      const cached = await cache.reuse(lease);
      if (cached !== null) return cached;
      await install(lease);
      const outcome = await build(job, staged, compiler, lease, deps);
      return outcome.to === 'completed' ? { ...outcome, facts: { resultKey: cache.keyOf(lease) } } : outcome;
    });
  } catch (error) {
    return outcomeOf(error, job.signal, deps.log);
  }
}

/** Never `esphome clean`: it wipes what other devices share (ESPHome 2026.10). */
async function clean(job: RunningJob, deps: RunnerDeps): Promise<Outcome> {
  await deps.cleanBuildDir(job.record.configuration);
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
        await deps.swapIn(staged, job.record);
        installed = lease.fence;
      });
    }
    installed = lease.fence;
  };
}

async function againIfLost(
  job: RunningJob,
  deps: RunnerDeps,
  work: (lease: Lease) => Promise<Outcome>,
): Promise<Outcome> {
  for (let attempt = 1; ; attempt += 1) {
    if (attempt > 1) job.note({ attempt });
    try {
      return await underLease(job, deps, work);
    } catch (error) {
      if (attempt === maxAttempts || job.signal.aborted || !isReceiverError(error, 'LOCK_LOST')) throw error;
      deps.log.warn({ id: job.record.id }, 'a job lost its lock and is run again');
      job.output('The lock on the build directory was lost; the job is run again.\n');
    }
  }
}

/** Runs the work under the device's lease. What was done under a lease that was lost meanwhile does not count. */
async function underLease(
  job: RunningJob,
  deps: RunnerDeps,
  work: (lease: Lease) => Promise<Outcome>,
): Promise<Outcome> {
  const { record, signal } = job;
  const reason = `${record.target} ${record.id}`;
  const onBlocked = (): void => showBusyDevice(job);
  const lease = await deps.acquireLease({ key: record, reason, signal, onBlocked });
  if (job.record.waiting !== null) job.note({ waiting: null });
  try {
    signal.throwIfAborted();
    const result = await work(lease);
    assertOurs(job, lease);
    return result;
  } catch (error) {
    assertOurs(job, lease, error);
    throw error;
  } finally {
    await lease.release();
  }
}

/** Once for each wait: within this process and among processes it may be told twice. */
function showBusyDevice(job: RunningJob): void {
  if (job.record.waiting !== null) return;
  job.output('Waiting until the directory of this device is free.\n');
  job.note({ waiting: { for: 'device' } });
}

/** Throws when the job was cancelled or the directory is no longer ours; called between any two steps. */
function assertOurs(job: RunningJob, lease: Lease, cause?: unknown): void {
  job.signal.throwIfAborted();
  if (!lease.signal.aborted) return;
  throw new ReceiverError(
    'LOCK_LOST',
    'the lock on the build directory was lost',
    {},
    { cause: cause ?? lease.signal.reason },
  );
}

async function build(
  job: RunningJob,
  staged: StagedBundle,
  compiler: Compiler,
  lease: Lease,
  deps: RunnerDeps,
): Promise<Outcome> {
  const { id, configuration } = job.record;
  assertOurs(job, lease);
  const { environment: env } = compiler;
  const directory = await deps.openBuildDir(configuration, env);
  let trusted = true;
  try {
    const common = {
      ...{
        cwd: deps.paths.resolveDataDir(configuration),
        env,
        signal: job.signal,
        leaseSignal: lease.signal,
      },
      ...{ onLine: (line: string) => job.output(line), log: deps.log },
      beforeStart: (identity: Parameters<Lease['recordBuild']>[0]) => lease.recordBuild(identity),
    };
    const refused = await look(job, staged, compiler, common, deps);
    if (refused !== null) return refused;
    assertOurs(job, lease);
    const { signal, output } = job;
    const limits = { timeoutMs: deps.compileTimeoutMs, silenceMs: deps.silenceTimeoutMs };
    const onWaiting = (waiting: Waiting | null): void => job.note({ waiting });
    const user = { id, configuration, version: compiler.version, lease, signal, output, onWaiting };
    const result = await deps.tools.compile(user, async (guard) => {
      trusted = false;
      const ended = await deps.compile({
        ...common,
        leaseSignal: guard.signal,
        beforeStart: guard.recordBuild,
        command: commandLine(job.record, compiler, deps.paths),
        ...limits,
      });
      trusted = !leavesDamage(ended);
      return ended;
    });
    // Also tells a compiler that failed from one that the next owner of the lock has ended.
    await lease.recordBuild(null);
    const failed = outcomeOfRun(result, limits);
    if (failed !== null) return failed;
  } finally {
    if (!lease.signal.aborted) await close(directory, trusted, deps.log);
  }
  assertOurs(job, lease);
  await deps.verify(configuration);
  assertOurs(job, lease);
  return { to: 'completed', artifacts: await lease.publish(() => deps.storeArtifacts(id, configuration)) };
}

/** What a build makes hard to remove must not turn its success into a failure. */
async function close(directory: BuildDir, trusted: boolean, log: Log): Promise<void> {
  await directory.close({ trusted }).catch((error: unknown) => {
    log.warn({ error }, 'a build directory could not be tidied');
  });
}

/** Only a bundle that has the words in it is worth the 0.2 s. */
async function look(
  job: RunningJob,
  staged: StagedBundle,
  esphome: Compiler,
  common: Omit<CompileRequest, 'command' | 'timeoutMs'>,
  deps: RunnerDeps,
): Promise<Outcome | null> {
  const { buildPath, remoteParts } = staged.hints;
  if (!buildPath && !remoteParts) return null;
  const { configuration } = job.record;
  const result = await deps.precheck({
    ...common,
    esphome: esphome.command,
    yaml: deps.paths.resolveConfigPath(configuration),
    dataDir: deps.paths.resolveDataDir(configuration),
  });
  return result && outcomeOfRun(result, { timeoutMs: precheckTimeoutMs });
}

function commandLine(
  { configuration, skipBootloader }: JobRecord,
  { command, version }: Compiler,
  paths: Paths,
) {
  return compileArgs(command, paths.resolveConfigPath(configuration), { skipBootloader, version });
}

/** Null for a success. Throws `CANCELLED` or `LOCK_LOST` when that is how it ended. */
function outcomeOfRun(result: CompileResult, limits: CompileLimits): Outcome | null {
  const ended = endingError(result);
  if (ended !== null) throw ended;
  const failure = judge(result, limits);
  return failure && { to: 'failed', ...failure };
}
