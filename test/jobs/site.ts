/**
 * Jobs on real files, for tests: the lease, the swap, the tools, the stand-in compiler, the proof and the packed
 * result are the real ones, in a directory of their own.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { collectArtifacts } from '../../src/artifacts/collect.js';
import { verifyBuild } from '../../src/artifacts/firmware.js';
import { createArtifactStore } from '../../src/artifacts/store.js';
import { systemClock as clock, type Clock } from '../../src/async/clock.js';
import { installBundle } from '../../src/bundles/install.js';
import { stagedBundle, type StagedBundle, createBundleStore } from '../../src/bundles/store.js';
import { cleanBuildDir, openBuildDir } from '../../src/compile/build-dir.js';
import { runCompile } from '../../src/compile/compile.js';
import { precheck } from '../../src/compile/precheck.js';
import { createEnvironment } from '../../src/esphome/environment.js';
import { chooseFor, createChoice, type ChooseEsphome } from '../../src/jobs/choose-esphome.js';
import { createJobService } from '../../src/jobs/job-service.js';
import type { JobService } from '../../src/jobs/job-service.js';
import { openDiskStore } from '../../src/jobs/disk-store.js';
import { createMemoryQueue } from '../../src/jobs/queue.js';
import type { JobRecord, JobRequest } from '../../src/jobs/record.js';
import { runJob, type RunnerDeps } from '../../src/jobs/runner.js';
import { acquireLease } from '../../src/locks/lease.js';
import { presenceDirOf } from '../../src/locks/presence.js';
import { silentLog as log } from '../../src/log.js';
import { createPaths, fileName, type Paths } from '../../src/paths/index.js';
import { createInstalled } from '../../src/provision/installed.js';
import { standInEsphome } from '../../src/testing/index.js';
import { createToolDirectories } from '../../src/toolchains/directories.js';
import { enterToolchain } from '../../src/toolchains/gate.js';
import { createTools } from '../../src/toolchains/run-with-tools.js';
import { defaultOptions, defaultTiming } from '../support/options.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { exampleRequest } from './examples.js';

export interface Site {
  readonly jobs: JobService;
  readonly paths: Paths;
  readonly base: string;
  /** Submits a configuration and waits for its end. */
  build(text: string, facts?: Partial<JobRequest> & { readonly name?: string }): Promise<JobRecord>;
  /** The same, without waiting. */
  submit(text: string, facts?: Partial<JobRequest> & { readonly name?: string }): Promise<string>;
  ended(id: string): Promise<JobRecord>;
  /** Resolves with the line of output that matches. */
  printed(pattern: RegExp): Promise<string>;
}

export const host = (name: string, more = ''): string => `esphome:\n  name: ${name}\nhost:\n${more}`;

/** Locks that are free two seconds after their owner was killed. */
/** What a job does to the world, from the choice of its ESPHome to its packed result. */
export interface JobSteps extends RunnerDeps {
  readonly chooseEsphome: ChooseEsphome;
}

export function quickLocks(base: string): Pick<RunnerDeps, 'acquireLease'> {
  const { locksDir } = createPaths({ configDir: join(base, 'config') }).layout;
  const timing = { staleMs: 2_000, updateMs: 1_000 };
  return { acquireLease: (wish) => acquireLease({ ...wish, locksDir, timing, log }) };
}

export async function site(
  t: Cleanups,
  base?: string,
  run: Partial<JobSteps> = {},
  jobClock: Clock = clock,
): Promise<Site> {
  const root = base ?? (await tempDir(t));
  const paths = createPaths({ configDir: join(root, 'config') });
  const { layout } = paths;
  const { jobsDir, uploadsDir, locksDir, toolchainsDir } = layout;
  for (const directory of [jobsDir, uploadsDir, toolchainsDir]) await mkdir(directory, { recursive: true });
  const hostEnvironment = { PATH: '/usr/bin:/bin', ESPHOME_IS_HA_ADDON: 'true' };
  const presenceDir = presenceDirOf(locksDir);
  const artifacts = createArtifactStore(layout.artifactsDir);
  const timing = defaultTiming;
  const runner: JobSteps = {
    paths,
    chooseEsphome: createChoice({
      installed: createInstalled({
        esphome: standInEsphome,
        environment: {},
        probeEnv: hostEnvironment,
        clock,
      }),
      releases: null,
    }),
    composeEnvironment: createEnvironment({ paths, environment: hostEnvironment }),
    acquireLease: (wish) => acquireLease({ ...wish, locksDir: layout.locksDir, timing, log }),
    installBundle: (staged, key) => installBundle(staged, { layout, key, log }),
    openBuildDir: (configuration, env, lease) => openBuildDir(paths, configuration, env, lease),
    cleanBuildDir: (configuration, lease) => cleanBuildDir(paths, configuration, lease),
    precheck,
    compile: (request) => runCompile({ ...request, graceMs: 100 }),
    verify: (configuration) => verifyBuild(paths, configuration),
    storeArtifacts: async (id, configuration) =>
      artifacts.put(id, await collectArtifacts({ paths, configuration })),
    copyArtifacts: (from, id) => artifacts.copy(from, id),
    tools: createTools({
      enterToolchain: (wish) => enterToolchain({ ...wish, locksDir, toolsDir: toolchainsDir, timing, log }),
      directories: createToolDirectories({ layout, timing, clock, log }),
      ...{ paths, log },
    }),
    resultCache: true,
    ...{ compileTimeoutMs: 30_000, silenceTimeoutMs: 30_000, log },
    ...run,
  };
  const jobs = await createJobService({
    ...defaultOptions,
    store: await openDiskStore({ dir: layout.jobsDir, presenceDir, watchMs: 2_000, log }),
    bundles: createBundleStore(layout),
    queue: createMemoryQueue({ slots: 2 }),
    choose: (job) => chooseFor(job, runner.chooseEsphome),
    run: (job, staged, esphome) => runJob(job, staged, esphome, runner),
    openArtifacts: ({ id }) => artifacts.open(id),
    removeArtifacts: (id) => artifacts.remove(id),
    ...{ jobsDir: layout.jobsDir, pausesMs: run.pausesMs, clock: jobClock, log },
  });
  t.after(() => jobs.close());
  const submit = async (text: string, facts: Parameters<Site['submit']>[1] = {}): Promise<string> => {
    const request = exampleRequest({ bundleSha256: hashOf(text), ...facts });
    return jobs.submit(request, Promise.resolve(await stage(layout.uploadsDir, request.file, text))).id;
  };
  const ended = async (id: string): Promise<JobRecord> =>
    new Promise((resolve) => {
      const stop = jobs.subscribe((event) => {
        if (event.type !== 'state' || event.job.id !== id || event.job.finishedAt === null) return;
        stop();
        resolve(event.job);
      });
    });
  return {
    ...{ jobs, paths, base: root, submit, ended },
    build: async (text, facts) => ended(await submit(text, facts)),
    printed: (pattern) =>
      new Promise((resolve) => {
        const stop = jobs.subscribe((event) => {
          if (event.type !== 'output' || !pattern.test(event.line)) return;
          stop();
          resolve(event.line);
        });
      }),
  };
}

export async function stage(uploadsDir: string, file: string, text: string): Promise<StagedBundle> {
  await mkdir(uploadsDir, { recursive: true });
  const directory = await mkdtemp(join(uploadsDir, 'bundle-'));
  await writeFile(join(directory, file), text);
  return stagedBundle({
    ...{ directory, bytes: text.length, members: 1 },
    remoteContent: {
      buildPath: text.includes('build_path'),
      remoteParts: text.includes('packages:'),
      webFiles: text.includes('font:'),
    },
    contentSha256: hashOf(text),
    leftOut: [],
    manifest: { manifestVersion: 1, configFilename: fileName(file), esphomeVersion: null },
  });
}

export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

export function assertSucceeded({ state, failureReason, errorMessage }: JobRecord): void {
  assert.deepEqual([state, failureReason, errorMessage], ['completed', null, '']);
}
