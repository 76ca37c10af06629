/** Receivers that are killed on real files, at each step of a job; and a whole one, with a client that comes again. */
import assert from 'node:assert/strict';
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  unpackArtifacts,
  type OffloaderSession,
} from '../../src/koa/offloader.js';
import { startChild, type Child } from '../support/child.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { yaml } from '../support/whole.js';
import type { JobRecord } from '../../src/jobs/record.js';
import { assertSucceeded, quickLocks, site, type Site } from './site.js';

const heldSite = fileURLToPath(new URL('held-site.ts', import.meta.url));
const program = fileURLToPath(new URL('../support/receiver-program.js', import.meta.url));
const node = [process.execPath, '--import', 'tsx'] as const;

/** Sites whose receiver was killed at a step, each in a directory of the step's name. */
async function killedSites(t: Cleanups): Promise<string> {
  const root = await tempDir(t);
  const child = await startChild(t, [...node, heldSite, root]);
  await child.printed(/^held$/m, { deadlineMs: 40_000 });
  child.signal('SIGKILL');
  await child.ended;
  return root;
}

/** Opens the site again and waits for the ends of its three jobs. */
async function reopened(t: Cleanups, base: string): Promise<{ here: Site; jobs: readonly JobRecord[] }> {
  const here = await site(t, base, quickLocks(base));
  const jobs = await Promise.all(here.jobs.list().map(({ id }) => here.ended(id)));
  assert.deepEqual(
    jobs.map(({ peerJobId }) => peerJobId),
    ['one', 'two', 'three'],
  );
  await waitFor(async () => (await readdir(here.paths.layout.uploadsDir)).length === 0, {
    what: 'no staging',
  });
  return { here, jobs };
}

describe('A receiver that is killed', { concurrency: 2 }, () => {
  test('at any step builds all its jobs after the restart, but for those whose bundle the disk has lost', async (t) => {
    const root = await killedSites(t);
    const losing = join(root, 'losing bundles');
    const uploads = join(losing, 'config/.esphome/.remote_builds/.receiver/uploads');
    for (const id of await readdir(uploads)) {
      const files = await readdir(join(uploads, id));
      if (files.includes('one.yaml')) await truncate(join(uploads, id, 'one.yaml'), 3);
      if (files.includes('two.yaml')) await rm(join(uploads, id), { recursive: true });
    }
    const lost = async (): Promise<void> => {
      const [cut, gone, whole] = (await reopened(t, losing)).jobs;
      for (const job of [cut, gone]) {
        assert.deepEqual([job?.state, job?.failureReason, job?.interrupted], ['failed', 'internal', true]);
        assert.match(job?.errorMessage ?? '', /bundle of this job is no longer on the build server/);
      }
      assertSucceeded(whole ?? assert.fail());
    };
    const built = async (step: string): Promise<void> => {
      const { here, jobs } = await reopened(t, join(root, step));
      for (const [index, job] of jobs.entries()) {
        assertSucceeded(job);
        assert.equal(job.requeued, index < 2, step);
        const archive = await buffer((await here.jobs.openArtifacts(job.id)).read());
        assert.equal(archive.length, job.artifacts?.bytes);
        const config = await readFile(here.paths.resolveConfigPath(job.configuration), 'utf8');
        assert.ok(config.includes(`name: ${job.peerJobId}\n`), 'each has its own configuration');
      }
    };
    const steps = await readdir(root);
    assert.equal(steps.length, 4);
    await Promise.all(steps.map((step) => (step === 'losing bundles' ? lost() : built(step))));
  });

  test('as a whole, is found again by a client with all its jobs, each of which ends once', async (t) => {
    const [configDir, home] = [await tempDir(t), await tempDir(t)];
    const identity = await loadOffloaderIdentity(home);
    const bundles = new Map<string, Buffer>();
    for (const [name, knobs] of [
      ['done', ''],
      ['runs', 'sleep=3000'],
      ['waits', ''],
    ] as const) {
      await writeFile(join(home, `${name}.yaml`), yaml(name, knobs));
      bundles.set(name, (await makeBundle({ configDir: home, file: `${name}.yaml` })).bytes);
    }
    const told = new Map<string, string[]>();
    const build = (session: OffloaderSession, name: string, onOutput: (line: string) => void = () => {}) =>
      session.build({
        ...{
          file: `${name}.yaml`,
          bundle: bundles.get(name) ?? assert.fail(),
          jobId: `job-${name}`,
          onOutput,
        },
        onState: (state) => told.set(name, [...(told.get(name) ?? []), state]),
      });

    const first = await startReceiver(t, configDir);
    const before = await first.connect(identity);
    assert.equal((await build(before, 'done')).status, 'completed');
    let output = '';
    const lost = [build(before, 'runs', (line) => (output += line)).catch(() => 'lost')];
    await waitFor(() => output.includes('sleeping'), { deadlineMs: 20_000 });
    // Not before: of two that are sent at once either may be first.
    lost.push(build(before, 'waits').catch(() => 'lost'));
    const records = join(configDir, '.esphome/.remote_builds/.receiver/jobs');
    await waitFor(async () => {
      const texts = (await readdir(records))
        .filter((name) => name.endsWith('.json'))
        .map((name) => readFile(join(records, name), 'utf8'));
      return (await Promise.all(texts)).some((text) => text.includes('"state":"queued"'));
    });
    first.child.signal('SIGKILL');
    assert.deepEqual(await Promise.all(lost), ['lost', 'lost']);
    told.clear();

    const second = await startReceiver(t, configDir);
    const again = await second.connect(identity);
    output = '';
    const results = await Promise.all([
      build(again, 'done'),
      build(again, 'runs', (line) => (output += line)),
      build(again, 'waits'),
    ]);
    for (const result of results) assert.equal(result.status, 'completed', result.errorMessage);
    assert.deepEqual(told.get('done'), ['completed'], 'what has ended is told and not built');
    for (const states of told.values()) {
      assert.equal(states.filter((state) => state === 'completed').length, 1);
      assert.equal(states.at(-1), 'completed');
    }
    assert.match(output, /LINK program/, 'the frames of a restored job arrive');
    for (const { jobId } of results) {
      const { bytes } = await again.downloadArtifacts(jobId);
      const { storage } = await unpackArtifacts(bytes, join(home, `out-${jobId}`));
      assert.equal(`job-${storage.name}`, jobId);
    }
    assert.equal((await readdir(records)).filter((name) => name.endsWith('.json')).length, 3);
    await again.close();
    assert.equal(await second.child.stop(), 0);
    const uploads = join(records, '../uploads');
    assert.deepEqual(await readdir(uploads), []);
  });
});

interface Server {
  readonly child: Child;
  connect(identity: Awaited<ReturnType<typeof loadOffloaderIdentity>>): Promise<OffloaderSession>;
}

async function startReceiver(t: Cleanups, configDir: string): Promise<Server> {
  const child = await startChild(t, [...node, program, configDir, '2000']);
  const [line] = await child.printed(/^\{"port".*$/m, { deadlineMs: 20_000 });
  const { port, pin } = JSON.parse(line) as { port: number; pin: string };
  return {
    child,
    async connect(identity) {
      const connect = () => dial({ host: '127.0.0.1', port });
      const offloader = createOffloader({ identity, connect, label: 'killed' });
      if ((await offloader.requestPairing({ pin })) === 'pending') await offloader.waitForApproval({ pin });
      return offloader.openSession({ pin });
    },
  };
}
