/**
 * One build under the lease of its device, from the installed configuration to the packed result: the precheck for
 * writes elsewhere, the compile, the verification, the archive.
 *
 * Between any two steps it checks that the job was not cancelled and that the lease still holds; a build that
 * continued without the lock would write into the next one's tree.
 */
import type { ArtifactFacts } from '../artifacts/pack.js';
import { patiently } from '../disk/reserve.js';
import type { StagedBundle } from '../bundles/store.js';
import type { BuildDir } from '../compile/build-dir.js';
import { endingError, type CompileRequest, type CompileResult } from '../compile/compile.js';
import { precheckTimeoutMs, type PrecheckRequest } from '../compile/precheck.js';
import { judge, leavesDamage, type CompileLimits } from '../compile/verdict.js';
import { compileArgs } from '../esphome/command.js';
import type { Lease } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { ResolvedOptions } from '../options/core.js';
import type { Paths } from '../paths/index.js';
import type { ChosenEsphome } from './choose-esphome.js';
import type { JobRecord, Outcome, QueuedJob } from './record.js';
import type { CachedJob } from './result-cache.js';
import type { Tools } from '../toolchains/run-with-tools.js';
import type { WaitReason } from './waiting.js';

/** The side effects of a build, injected so that a test can force every moment. */
export interface BuildDeps extends Pick<ResolvedOptions, 'compileTimeoutMs' | 'silenceTimeoutMs'> {
  readonly paths: Paths;
  readonly openBuildDir: (
    configuration: string,
    env: Readonly<Record<string, string>>,
    lease: Pick<Lease, 'publish'>,
  ) => Promise<BuildDir>;
  readonly precheck: (request: PrecheckRequest) => Promise<CompileResult | null>;
  readonly compile: (request: CompileRequest) => Promise<CompileResult>;
  /** Throws when the device's directory does not hold a finished build. */
  readonly verify: (configuration: string) => Promise<unknown>;
  /** Collects, packs and keeps the result under the job's id. */
  readonly storeArtifacts: (id: string, configuration: string) => Promise<ArtifactFacts>;
  readonly tools: Tools;
  /** See {@link patiently}. */
  readonly pausesMs?: readonly number[];
  readonly log: Log;
}

export interface RunningJob extends QueuedJob, CachedJob {
  readonly record: JobRecord;
  /**
   * Resolves when the running state is stored, or the store has failed. No compiler may start before: one that
   * crashes the receiver would be run again and again.
   */
  recorded(): Promise<void>;
}

export interface Compiler extends Pick<ChosenEsphome, 'command' | 'version'> {
  readonly environment: Readonly<Record<string, string>>;
}

export interface JobLease extends Lease {
  /** Throws the cancellation's reason, or `LOCK_LOST` when the lease was lost. Called between any two steps. */
  assertHeld(): void;
}

/** Throws `CANCELLED`, `LOCK_LOST`, and what its steps throw. */
export async function build(
  job: RunningJob,
  staged: StagedBundle,
  compiler: Compiler,
  lease: JobLease,
  deps: BuildDeps,
): Promise<Outcome> {
  const { id, configuration } = job.record;
  lease.assertHeld();
  const { environment: env } = compiler;
  const directory = await deps.openBuildDir(configuration, env, lease);
  if (directory.isEmptied) job.output('The last build of this device was killed; building from scratch.\n');
  const ending = AbortSignal.any([job.signal, lease.signal]);
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
      beforeStart: (identity: Parameters<Lease['recordBuild']>[0]) => recordStart(job, lease, identity),
    };
    const refused = await runPrecheck(job, staged, compiler, common, deps);
    if (refused !== null) return refused;
    lease.assertHeld();
    const { signal, output } = job;
    const limits = { timeoutMs: deps.compileTimeoutMs, silenceTimeoutMs: deps.silenceTimeoutMs };
    const onWaiting = (waiting: WaitReason | null): void => job.recordFacts({ waiting });
    const onPlatform = (platform: string): void => job.recordFacts({ platform });
    const user = {
      id,
      configuration,
      version: compiler.version,
      lease,
      signal,
      output,
      onWaiting,
      onPlatform,
    };
    const result = await deps.tools.compile(user, async (guard) => {
      trusted = false;
      const ended = await deps.compile({
        ...common,
        leaseSignal: guard.signal,
        beforeStart: (identity) => recordStart(job, guard, identity),
        command: commandLine(job.record, compiler, deps.paths),
        ...limits,
      });
      trusted = !leavesDamage(ended);
      return ended;
    });
    // Also distinguishes a compiler that failed from one that the next owner of the lock has stopped.
    await patiently(() => lease.recordBuild(null), ending, deps.log, deps.pausesMs);
    const failed = outcomeOfRun(result, limits);
    if (failed !== null) return failed;
  } finally {
    if (!lease.signal.aborted) await close(directory, trusted, deps.log);
  }
  lease.assertHeld();
  await deps.verify(configuration);
  lease.assertHeld();
  const store = (): Promise<ArtifactFacts> => lease.publish(() => deps.storeArtifacts(id, configuration));
  return { to: 'completed', artifacts: await patiently(store, ending, deps.log, deps.pausesMs) };
}

/** Records the build and its job for a successor, in parallel: each write takes milliseconds. */
async function recordStart(
  job: RunningJob,
  guard: Pick<Lease, 'recordBuild'>,
  identity: Parameters<Lease['recordBuild']>[0],
): Promise<void> {
  await Promise.all([guard.recordBuild(identity), job.recorded()]);
}

/** Files that a build makes hard to remove must not turn its success into a failure. */
async function close(directory: BuildDir, trusted: boolean, log: Log): Promise<void> {
  await directory.close({ trusted }).catch((error: unknown) => {
    log.warn({ err: error }, 'build directory cleanup failed');
  });
}

/** Costs 0.2 s, so it runs only for a bundle that contains the relevant keys. */
async function runPrecheck(
  job: RunningJob,
  staged: StagedBundle,
  esphome: Compiler,
  common: Omit<CompileRequest, 'command' | 'timeoutMs'>,
  deps: BuildDeps,
): Promise<Outcome | null> {
  const { buildPath, remoteParts } = staged.remoteContent;
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

/** Null for a success. Throws `CANCELLED` or `LOCK_LOST` when the run ended that way. */
function outcomeOfRun(result: CompileResult, limits: CompileLimits): Outcome | null {
  const ended = endingError(result);
  if (ended !== null) throw ended;
  const failure = judge(result, limits);
  return failure && { to: 'failed', ...failure };
}
