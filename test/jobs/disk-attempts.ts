/**
 * What jobs do while the disk refuses, for tests in which each call of the file system fails in turn. What was
 * acknowledged is never lost, every error is one that a peer can read, and everything works afterwards.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { createArtifactStore } from '../../src/artifacts/store.js';
import { systemClock, type Clock } from '../../src/async/clock.js';
import { hostFaultOf, isReceiverError } from '../../src/errors.js';
import { openDiskStore } from '../../src/jobs/disk-store.js';
import { isTerminal, type JobRecord } from '../../src/jobs/record.js';
import { acquireLease } from '../../src/locks/lease.js';
import { presenceDirOf } from '../../src/locks/presence.js';
import { silentLog } from '../../src/log.js';
import { createPaths, type Layout } from '../../src/paths/index.js';
import { startRecovery } from '../../src/recovery.js';
import { exampleRecord } from '../../src/testing/index.js';
import type { Attempt } from '../support/failing-disk.js';
import { defaultTiming } from '../support/options.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { deferred, exampleRequest } from './examples.js';
import { cleanResult } from './harness.js';
import { host, site, stage, type JobSteps, type Site } from './site.js';

/** Tries again soon what the disk has refused. */
const hasty: Clock = {
  ...systemClock,
  after: (delayMs, callback, keepsAlive) => systemClock.after(delayMs / 50, callback, keepsAlive),
};

const deadline = { deadlineMs: 60_000 };

/** Jobs on real files whose compile waits until it is let go. Everything but the compiler is real. */
export async function held(t: Cleanups): Promise<{ here: Site; reached: Promise<void>; letGo: () => void }> {
  const base = await tempDir(t);
  const artifacts = createArtifactStore(createPaths({ configDir: join(base, 'config') }).layout.artifactsDir);
  const [reached, gone] = [deferred(), deferred()];
  const steps: Partial<JobSteps> = {
    chooseEsphome: async () => ({
      ...{ command: ['/bin/esphome'], version: '2026.10.0', confirm: async () => '2026.10.0' },
      async release() {},
    }),
    async compile() {
      reached.resolve();
      await gone.promise;
      return cleanResult;
    },
    verify: async () => {},
    storeArtifacts: (id) =>
      artifacts.put(id, {
        members: [{ name: 'firmware.bin', size: 3, source: Buffer.from('bin'), executable: false }],
        storage: {} as never,
        firmwareOffset: '0x0',
        maxBytes: 1_000_000,
      }),
    tools: { compile: ({ lease }, run) => run(lease) },
    resultCache: false,
    pausesMs: [1, 1],
  };
  return { here: await site(t, base, steps, hasty), reached: reached.promise, letGo: () => gone.resolve() };
}

export async function recordOf({ jobsDir }: Layout, id: string): Promise<JobRecord | null> {
  const name = (await readdir(jobsDir)).find((one) => one.startsWith(id) && one.endsWith('.json'));
  return name === undefined ? null : (JSON.parse(await readFile(join(jobsDir, name), 'utf8')) as JobRecord);
}

/** A sentence that names no host path, and not the one that stands for a bug. */
export function assertReadable({ state, errorMessage }: JobRecord, at: string): void {
  if (state === 'completed') return;
  assert.doesNotMatch(errorMessage, /^$|internal error|\/tmp|\.receiver/, at);
}

/** Whichever call fails while a job is accepted: it is recorded, or refused with nothing left. */
export async function accepting(t: Cleanups): Promise<Attempt<unknown>> {
  const { here, letGo } = await held(t);
  const { layout, buildsDir } = here.paths;
  const bundle = await stage(layout.uploadsDir, 'kitchen.yaml', host('kitchen'));
  let id = '';
  return {
    directory: buildsDir,
    act: () =>
      new Promise<void>((resolve, reject) => {
        here.jobs.subscribe((event) => {
          if (event.type === 'state') resolve();
        });
        const done = (fault: { readonly error: unknown } | null): void => {
          if (fault !== null) reject(fault.error);
        };
        id = here.jobs.submit(exampleRequest(), Promise.resolve(bundle), done).id;
      }),
    async check(outcome, at) {
      if ('error' in outcome) {
        assert.ok(hostFaultOf(outcome.error), `${at}: ${String(outcome.error)}`);
        assert.equal(here.jobs.get(id), undefined, at);
        // What cannot be removed either is removed by the next start.
        if (at.includes(' at call')) {
          await waitFor(async () => (await readdir(layout.uploadsDir)).length === 0, {
            ...deadline,
            what: at,
          });
          assert.equal(await recordOf(layout, id), null, at);
        }
      } else {
        assert.ok(await recordOf(layout, id), at);
        if (at.includes(' at call')) assert.notEqual(here.jobs.get(id)?.bundle, null, at);
      }
      letGo();
      if ('result' in outcome) {
        await waitFor(() => isTerminal(here.jobs.get(id) ?? assert.fail(at)), deadline);
        assertReadable(here.jobs.get(id) as JobRecord, at);
      }
      const again = await here.build(host('kitchen'), { peerJobId: 'job-2' });
      assert.equal(again.state, 'completed', `${at}: ${again.errorMessage}`);
      await here.jobs.close();
    },
  };
}

/** Whichever call fails while a build ends: it ends once, frees slot and lock, and is recorded at last. */
export async function ending(t: Cleanups): Promise<Attempt<JobRecord>> {
  const { here, reached, letGo } = await held(t);
  const { layout, buildsDir } = here.paths;
  const id = await here.submit(host('kitchen'));
  await reached;
  return {
    directory: buildsDir,
    async act() {
      const ended = here.ended(id);
      letGo();
      return ended;
    },
    async check(outcome, at) {
      assert.ok('result' in outcome, at);
      const { result: job } = outcome;
      assertReadable(job, at);
      if (at.includes(' at call')) assert.equal(job.state, 'completed', `${at}: ${job.errorMessage}`);
      assert.ok(here.jobs.queueStatus().idle, at);
      const lease = await acquireLease({
        ...{ locksDir: layout.locksDir, key: job, reason: 'test', deadlineMs: 60_000 },
        ...{ timing: defaultTiming, log: silentLog },
      });
      await lease.release();
      await waitFor(async () => (await recordOf(layout, id))?.state === job.state, {
        ...deadline,
        what: at,
      });
      if (job.state === 'completed') {
        const packed = [];
        for await (const piece of (await here.jobs.openArtifacts(id)).read()) packed.push(piece);
        assert.equal(Buffer.concat(packed).length, job.artifacts?.bytes, at);
      }
      const again = await here.build(host('kitchen'), { peerJobId: 'job-2' });
      assert.equal(again.state, 'completed', `${at}: ${again.errorMessage}`);
      await here.jobs.close();
      await waitFor(async () => (await readdir(layout.uploadsDir)).length === 0, { ...deadline, what: at });
    },
  };
}

/** Whichever call fails while jobs are loaded: the next load finds each of them, unchanged. */
export async function loading(t: Cleanups): Promise<Attempt<unknown>> {
  const records = (['queued', 'running', 'completed', 'failed'] as const).map((state, n) =>
    exampleRecord({ state, createdAt: n + 1 }),
  );
  const { layout } = createPaths({ configDir: join(await tempDir(t), 'config') });
  const options = {
    ...{ dir: layout.jobsDir, presenceDir: presenceDirOf(layout.locksDir) },
    ...{ watchMs: 10, log: silentLog },
  };
  await mkdir(layout.jobsDir, { recursive: true });
  // Without an owner, as a store that was closed by another receiver leaves them.
  for (const record of records)
    await writeFile(join(layout.jobsDir, `${record.id}.json`), JSON.stringify(record));
  return {
    directory: layout.receiverDir,
    async act() {
      const store = await openDiskStore(options);
      try {
        return await store.load();
      } finally {
        await store.close();
      }
    },
    async check(outcome, at) {
      if ('error' in outcome) assert.ok(hostFaultOf(outcome.error) ?? isReceiverError(outcome.error), at);
      const store = await openDiskStore(options);
      const found = [
        ...(await store.load()),
        ...(await store.loadLeft(AbortSignal.timeout(deadline.deadlineMs))),
      ];
      await store.close();
      assert.deepEqual(
        found.toSorted((a, b) => a.createdAt - b.createdAt).map(({ id, state }) => [id, state]),
        records.map(({ id, state }) => [id, state]),
        at,
      );
    },
  };
}

/** Whichever call fails while a start tidies up: nothing that a job needs is removed. */
export async function tidying(t: Cleanups): Promise<Attempt<unknown>> {
  const live = exampleRecord({ state: 'queued' });
  const ended = exampleRecord({ state: 'completed' });
  const base = await tempDir(t);
  const { layout } = createPaths({ configDir: join(base, 'config') });
  for (const directory of [...layout.ownDirectories, join(base, 'state')])
    await mkdir(directory, { recursive: true });
  for (const record of [live, ended])
    await writeFile(join(layout.jobsDir, `${record.id}.json`), JSON.stringify(record));
  await mkdir(join(layout.uploadsDir, live.id));
  await mkdir(join(layout.uploadsDir, ended.id));
  for (const id of [ended.id, live.id]) await writeFile(join(layout.artifactsDir, `${id}.tar.gz`), '');
  const start = async (): Promise<void> => {
    const timing = { staleMs: 2_000, updateMs: 1_000 };
    const options = { layout, stateDir: join(base, 'state'), timing, jobIds: () => [], log: silentLog };
    const recovery = await startRecovery(options);
    await recovery.done;
    await recovery.close();
  };
  const isKept = async (at: string): Promise<void> => {
    assert.ok((await readdir(layout.uploadsDir)).includes(live.id), at);
    assert.ok((await readdir(layout.artifactsDir)).includes(`${ended.id}.tar.gz`), at);
  };
  return {
    directory: layout.receiverDir,
    act: start,
    async check(outcome, at) {
      if ('error' in outcome) assert.ok(hostFaultOf(outcome.error) ?? isReceiverError(outcome.error), at);
      await isKept(at);
      await start();
      await isKept(at);
      assert.deepEqual(await readdir(layout.uploadsDir), [live.id], at);
    },
  };
}
