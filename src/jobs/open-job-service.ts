/**
 * The job service of a real server: binds each step of the runner to its implementation on disk and processes.
 *
 * The parts do not know each other, so that a test can force every moment. Only this file assembles what they share:
 * one layout, one set of locks, one environment for the precheck and the compile.
 */
import { collectArtifacts } from '../artifacts/collect.js';
import { verifyBuild } from '../artifacts/firmware.js';
import { createArtifactStore } from '../artifacts/store.js';
import type { Clock } from '../async/clock.js';
import { installBundle } from '../bundles/install.js';
import { createBundleStore } from '../bundles/store.js';
import { cleanBuildDir, openBuildDir } from '../compile/build-dir.js';
import { runCompile } from '../compile/compile.js';
import { precheck } from '../compile/precheck.js';
import { freeSpaceBytes } from '../disk/reserve.js';
import type { Environment } from '../esphome/environment.js';
import type { Lease, LockTiming } from '../locks/lease.js';
import { presenceDirOf } from '../locks/presence.js';
import type { Log } from '../log.js';
import type { ResolvedOptions } from '../options/core.js';
import type { Paths } from '../paths/index.js';
import { freeMemoryBytes } from '../process/machine.js';
import type { ToolDirectories } from '../toolchains/directories.js';
import { enterToolchain } from '../toolchains/gate.js';
import { createTools } from '../toolchains/run-with-tools.js';
import { withAdmission } from './admission.js';
import { chooseFor, type ChooseEsphome } from './choose-esphome.js';
import { openDiskStore } from './disk-store.js';
import { createJobService, type JobLimits } from './job-service.js';
import type { JobService } from './job-service.js';
import { createMemoryQueue } from './queue.js';
import { runJob, type LeaseRequest, type RunnerDeps } from './runner.js';

export interface JobParts
  extends
    JobLimits,
    Pick<ResolvedOptions, 'slots' | 'minFreeMemoryBytes' | 'minFreeDiskBytes' | 'log'>,
    Pick<ResolvedOptions, 'compileTimeoutMs' | 'silenceTimeoutMs' | 'resultCache'> {
  readonly paths: Paths;
  readonly composeEnvironment: (configuration: string) => Environment;
  readonly chooseEsphome: ChooseEsphome;
  readonly acquire: (request: LeaseRequest) => Promise<Lease>;
  readonly timing: LockTiming;
  readonly toolDirectories: ToolDirectories;
  readonly clock: Clock;
}

/** The directories of the layout must exist. Throws system errors. */
export async function openJobService(parts: JobParts): Promise<JobService> {
  const { paths, chooseEsphome, acquire, timing, log } = parts;
  const { layout } = paths;
  const { locksDir, toolchainsDir: toolsDir } = layout;
  const presenceDir = presenceDirOf(locksDir);
  const artifacts = createArtifactStore(layout.artifactsDir);
  const runner: RunnerDeps = {
    ...parts,
    acquireLease: acquire,
    installBundle: (staged, key) => installBundle(staged, { layout, key, log }),
    openBuildDir: (configuration, env, lease) => openBuildDir(paths, configuration, env, lease),
    cleanBuildDir: (configuration, lease) => cleanBuildDir(paths, configuration, lease),
    precheck,
    compile: runCompile,
    verify: (configuration) => verifyBuild(paths, configuration),
    storeArtifacts: async (id, configuration) =>
      artifacts.put(id, await collectArtifacts({ paths, configuration })),
    copyArtifacts: (from, id) => artifacts.copy(from, id),
    tools: createTools({
      enterToolchain: (request) => enterToolchain({ ...request, locksDir, toolsDir, timing, log }),
      ...{ paths, directories: parts.toolDirectories, log },
    }),
  };
  return createJobService({
    ...parts,
    store: await openDiskStore({ dir: layout.jobsDir, presenceDir, watchMs: timing.staleMs, log }),
    bundles: createBundleStore(layout),
    queue: withAdmission(createMemoryQueue({ slots: parts.slots }), {
      ...parts,
      freeMemory: freeMemoryBytes,
      freeDisk: async () => freeOrUnknown(paths.buildsDir, log),
    }),
    choose: (job) => chooseFor(job, chooseEsphome),
    run: (job, staged, chosen) => runJob(job, staged, chosen, runner),
    // With the size and hash from the record, not those beside the file on disk.
    openArtifacts: async (record) => ({ ...(await artifacts.open(record.id)), ...record.artifacts }),
    removeArtifacts: (id) => artifacts.remove(id),
    jobsDir: layout.jobsDir,
  });
}

/** A volume that cannot report its free space must not block every build. */
async function freeOrUnknown(directory: string, log: Log): Promise<number | null> {
  return freeSpaceBytes(directory).catch((error: unknown) => {
    log.warn({ directory, err: error }, 'free disk space unknown');
    return null;
  });
}
