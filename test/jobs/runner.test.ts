/** Jobs on real files: the lease, the swap, the stand-in compiler, the proof and the packed result together. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { buffer } from 'node:stream/consumers';

import { collectArtifacts } from '../../src/artifacts/collect.js';
import { createArtifactStore } from '../../src/artifacts/store.js';
import { stagedBundle, type StagedBundle } from '../../src/bundles/staged.js';
import { swapIn } from '../../src/bundles/swap.js';
import { cleanBuildDir, openBuildDir } from '../../src/compile/build-dir.js';
import { runCompile } from '../../src/compile/compile.js';
import { precheck } from '../../src/compile/precheck.js';
import { verifyBuild } from '../../src/compile/verify.js';
import { createEnvironment } from '../../src/esphome/environment.js';
import { chooseInstalled } from '../../src/jobs/choose-esphome.js';
import { openDiskStore } from '../../src/jobs/disk-store.js';
import type { JobRecord, JobRequest } from '../../src/jobs/job.js';
import { createJobs, type Jobs } from '../../src/jobs/jobs.js';
import { createMemoryQueue } from '../../src/jobs/queue.js';
import { runJob, type RunnerDeps } from '../../src/jobs/runner.js';
import { acquireLease } from '../../src/locks/subtree-lease.js';
import { silentLog as log } from '../../src/log.js';
import { createPaths, fileName, type Paths } from '../../src/paths/index.js';
import { standInEsphome } from '../../src/testing/index.js';
import { isAlive } from '../support/is-alive.js';
import { tempDir } from '../support/temp-dir.js';
import { exampleRequest } from './examples.js';

interface Site {
  readonly jobs: Jobs;
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

const host = (name: string, more = ''): string => `esphome:\n  name: ${name}\nhost:\n${more}`;

async function site(t: TestContext, base?: string, run: Partial<RunnerDeps> = {}): Promise<Site> {
  const root = base ?? (await tempDir(t));
  const paths = createPaths({ configDir: join(root, 'config') });
  const { layout } = paths;
  for (const directory of [layout.jobsDir, layout.uploadsDir]) await mkdir(directory, { recursive: true });
  const hostEnvironment = { PATH: '/usr/bin:/bin', ESPHOME_IS_HA_ADDON: 'true' };
  const artifacts = createArtifactStore(layout.artifactsDir);
  const runner: RunnerDeps = {
    paths,
    chooseEsphome: chooseInstalled({ option: standInEsphome, env: {}, probeEnv: hostEnvironment }),
    composeEnvironment: createEnvironment({ paths, hostEnvironment }),
    acquireLease: (wish) => acquireLease({ ...wish, locksDir: layout.locksDir, log }),
    swapIn: (staged, key) => swapIn(staged, { layout, key, log }),
    openBuildDir: (configuration, env) => openBuildDir(paths, configuration, env),
    cleanBuildDir: (configuration) => cleanBuildDir(paths, configuration),
    precheck,
    compile: (request) => runCompile({ ...request, graceMs: 100 }),
    verify: (configuration) => verifyBuild(paths, configuration),
    storeArtifacts: async (id, configuration) =>
      artifacts.put(id, await collectArtifacts({ paths, configuration })),
    ...{ compileTimeoutMs: 30_000, log },
    ...run,
  };
  const jobs = await createJobs({
    store: await openDiskStore({ dir: layout.jobsDir, log }),
    queue: createMemoryQueue({ slots: 2 }),
    run: (job, staged) => runJob(job, staged, runner),
    openArtifacts: ({ id }) => artifacts.open(id),
    removeArtifacts: (id) => artifacts.remove(id),
    ...{ jobsDir: layout.jobsDir, log },
  });
  t.after(() => jobs.close());
  const submit = async (text: string, facts: Parameters<Site['submit']>[1] = {}): Promise<string> => {
    const request = exampleRequest(facts);
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

async function stage(uploadsDir: string, file: string, text: string): Promise<StagedBundle> {
  const directory = await mkdtemp(join(uploadsDir, 'bundle-'));
  await writeFile(join(directory, file), text);
  return stagedBundle({
    ...{ directory, bytes: text.length, members: 1 },
    hints: { buildPath: text.includes('build_path'), remoteParts: false },
    manifest: { configFilename: fileName(file) } as StagedBundle['manifest'],
  });
}

function assertSucceeded({ state, failureReason, errorMessage }: JobRecord): void {
  assert.deepEqual([state, failureReason, errorMessage], ['completed', null, '']);
}

async function assertNothingLeft({ paths: { layout } }: Site): Promise<void> {
  assert.deepEqual(await readdir(layout.uploadsDir), []);
  for (const name of await readdir(layout.jobsDir)) assert.match(name, /^[0-9a-f-]{36}\.(?:json|log)$/);
}

test('A build is done in its own place and delivered as it was, though a later one changes the device', async (t) => {
  const here = await site(t);
  const first = await here.build(host('kitchen'));
  assertSucceeded(first);
  assert.deepEqual(
    [first.esphomeVersion, first.progress.phase, first.progress.percent],
    ['2026.10.0', 'done', 100],
  );
  const bytes = await buffer((await here.jobs.openArtifacts(first.id)).read());
  assert.equal(bytes.length, first.artifacts?.bytes);
  assert.deepEqual([...bytes.subarray(0, 2)], [0x1f, 0x8b]);

  const second = await here.build(host('kitchen', 'api:\n'), { peerJobId: 'job-2' });
  assertSucceeded(second);
  assert.notEqual(second.artifacts?.sha256, first.artifacts?.sha256);
  assert.deepEqual(await buffer((await here.jobs.openArtifacts(first.id)).read()), bytes);

  const again = await here.build(host('kitchen', 'api:\n'), { peerJobId: 'job-3' });
  assertSucceeded(again);
  assert.match(await here.jobs.readLog(again.id), /^ninja: no work to do\.$/m);
  assert.deepEqual((await readdir(here.paths.resolveDataDir(first.configuration))).toSorted(), [
    ...['build', 'config', 'idedata', 'storage'],
  ]);
  await assertNothingLeft(here);
});

test('A job ends with a sentence of its own when it goes wrong, and no sentence holds a host path', async (t) => {
  const here = await site(t);
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [`# stand-in: exit=2\n${host('k')}`, 'config', /invalid/],
    [`# stand-in: exit=1\n${host('k')}`, 'compile', /exit code 1/],
    [`# stand-in: signal=SIGKILL\n${host('k')}`, 'resource', /out of memory/],
    [`# stand-in: elsewhere\n${host('k')}`, 'wrote_elsewhere', /^ESPHome ended well but wrote elsewhere/],
    [`# stand-in: no-firmware\n${host('k')}`, 'wrote_elsewhere', /no firmware/],
    ['esphome:\n  name: k\n  build_path: ../../x\nhost:\n', 'wrote_elsewhere', /^nothing was started/],
  ];
  for (const [index, [text, reason, message]] of cases.entries()) {
    const job = await here.build(text, { name: `d${index}.yaml` });
    assert.deepEqual([job.state, job.failureReason], ['failed', reason], text);
    assert.match(job.errorMessage, message);
    assert.ok(!job.errorMessage.includes(here.base));
  }
  await assertNothingLeft(here);
});

test('A wrong version, or no ESPHome, is refused so that the client can build by itself', async (t) => {
  const here = await site(t);
  const wrong = await here.build(host('kitchen'), { targetVersion: '2025.1.0' });
  assert.deepEqual([wrong.failureReason, wrong.startedAt === null], ['provision', false]);
  assert.equal(wrong.errorMessage, 'this build server has ESPHome 2026.10.0 and cannot install "2025.1.0"');
  assertSucceeded(await here.build(host('kitchen'), { targetVersion: '2026.10.0' }));
  const bare = await site(t, here.base, {
    chooseEsphome: chooseInstalled({ env: { PATH: '' }, probeEnv: {} }),
  });
  const none = await bare.build(host('kitchen'));
  assert.deepEqual(
    [none.failureReason, none.errorMessage],
    ['provision', 'this build server has no ESPHome installed'],
  );
});

test('A cancelled build leaves no process, and the next one is not in its way', async (t) => {
  const here = await site(t);
  const id = await here.submit(`# stand-in: ignore-term fork sleep=60000\n${host('kitchen')}`);
  const ended = here.ended(id);
  const [forked] = await Promise.all([here.printed(/forked \d+/), here.printed(/sleeping/)]);
  here.jobs.cancel(id);
  assert.equal((await ended).state, 'cancelled');
  assert.equal(isAlive(Number(/forked (\d+)/.exec(forked)?.[1])), false);
  const { configuration } = await ended;
  const mark = join(here.paths.resolveDataDir(configuration), '.unfinished');
  assert.ok((await stat(mark)).isFile(), 'a forced end is remembered');
  assertSucceeded(await here.build(host('kitchen'), { peerJobId: 'job-2' }));
  await assert.rejects(stat(mark), { code: 'ENOENT' });
  await assertNothingLeft(here);
});

test('A newer build of the device waits for the end of the one that it replaces, though a slot is free', async (t) => {
  const here = await site(t);
  const first = await here.submit(`# stand-in: ignore-term sleep=60000\n${host('kitchen')}`);
  const replaced = here.ended(first);
  await here.printed(/sleeping/);
  // Two compiles in one build directory would end the second with the stand-in's code 98.
  assertSucceeded(await here.build(host('kitchen', 'api:\n'), { peerJobId: 'job-2' }));
  assert.equal((await replaced).state, 'cancelled');
});

test('Devices of the same name, and peers with the same file, do not touch each other', async (t) => {
  const here = await site(t);
  const other = { dashboardId: 'another_peer' as JobRequest['dashboardId'] };
  const jobs = await Promise.all([
    here.build(host('same'), { name: 'kitchen.yaml' }),
    here.build(host('same', 'api:\n'), { name: 'kitchen.yml' }),
    here.build(host('same', 'web_server:\n'), { name: 'kitchen.yaml', ...other }),
  ]);
  for (const job of jobs) assertSucceeded(job);
  assert.equal(new Set(jobs.map(({ artifacts }) => artifacts?.sha256)).size, 3);
});

test('A clean removes what was built; the next build starts from nothing', async (t) => {
  const here = await site(t);
  const { configuration } = await here.build(host('kitchen'));
  assertSucceeded(await here.build('not even a configuration', { target: 'clean', peerJobId: 'job-2' }));
  const data = here.paths.resolveDataDir(configuration);
  assert.deepEqual((await readdir(data)).toSorted(), ['config', 'storage']);
  assert.equal(await readFile(here.paths.resolveConfigPath(configuration), 'utf8'), host('kitchen'));
  assertSucceeded(await here.build(host('kitchen'), { peerJobId: 'job-3' }));
});

test('A restarted server finds the finished job and its artifacts', async (t) => {
  const before = await site(t);
  const job = await before.build(host('kitchen'));
  await before.jobs.close();
  const after = await site(t, before.base);
  assert.deepEqual(after.jobs.find(job.dashboardId, job.peerJobId), job);
  const { bytes, sha256 } = await after.jobs.openArtifacts(job.id);
  assert.deepEqual([bytes, sha256], [job.artifacts?.bytes, job.artifacts?.sha256]);
  assert.match(await after.jobs.readLog(job.id), /LINK program/);
});
