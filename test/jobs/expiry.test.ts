import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { createMemoryStore } from './memory-store.js';
import { dashboardId } from '../../src/paths/index.js';
import { exampleRecord } from '../../src/testing/index.js';
import { manualClock } from '../async/manual-clock.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { submitted } from './held.js';
import { createWorld, type World } from './harness.js';

const hour = 3_600_000;

interface Timed extends World {
  advance(ms: number): void;
}

async function timed(t: TestContext, deps: object = {}, store = createMemoryStore()): Promise<Timed> {
  // Long ago, as a machine's clock may stand; only differences count.
  const clock = manualClock({ wall: 1_000 });
  const jobsDir = await tempDir(t);
  const world = await createWorld({ jobsDir, store, deps: { clock, ...deps } });
  return { ...world, advance: (ms) => clock.advance(ms) };
}

async function fetched({ jobs }: World, id: string): Promise<void> {
  for await (const _ of (await jobs.openArtifacts(id)).read()) assert.fail('it has no bytes here');
}

function ids({ jobs }: World): string[] {
  return jobs.list().map(({ id }) => id);
}

test('A result is removed when it expires, with its log and its record, and not before', async (t) => {
  const world = await timed(t, { resultTtlMs: 24 * hour });
  const { id, ended } = submitted(world);
  await ended;
  world.advance(24 * hour - 1);
  assert.deepEqual([ids(world), [...world.artifacts]], [[id], [id]]);
  world.advance(hour);
  await waitFor(async () => (await world.store.load()).length === 0);
  assert.deepEqual([ids(world), [...world.artifacts]], [[], []]);
  await world.jobs.close();
  world.assertAtRest();
});

test('A download renews the lifetime of its result', async (t) => {
  const world = await timed(t, { resultTtlMs: 24 * hour });
  const [used, unused] = [submitted(world), submitted(world, { name: 'bath.yaml' })];
  await Promise.all([used.ended, unused.ended]);
  world.advance(20 * hour);
  await fetched(world, used.id);
  assert.equal(world.jobs.get(used.id)?.fetchedAt, 1_000 + 20 * hour);
  world.advance(10 * hour);
  await waitFor(() => ids(world).length === 1);
  assert.deepEqual(ids(world), [used.id]);
  world.advance(24 * hour);
  await waitFor(() => ids(world).length === 0);
});

test('A download that was broken off renews nothing', async (t) => {
  const world = await timed(t, {
    openArtifacts: async () => ({
      ...{ bytes: 2, sha256: 'ab'.repeat(32), firmwareOffset: '0x0' },
      read: async function* () {
        yield Buffer.from('a');
        yield Buffer.from('b');
      },
    }),
  });
  const { id, ended } = submitted(world);
  await ended;
  for await (const _ of (await world.jobs.openArtifacts(id)).read()) break;
  assert.equal(world.jobs.get(id)?.fetchedAt, null);
});

test('A job that is removed during a download does not come back at the end of it', async (t) => {
  const world = await timed(t, {
    openArtifacts: async () => ({
      ...{ bytes: 1, sha256: 'ab'.repeat(32), firmwareOffset: '0x0' },
      read: async function* () {
        yield Buffer.from('a');
      },
    }),
  });
  const { id, ended } = submitted(world);
  await ended;
  for await (const _ of (await world.jobs.openArtifacts(id)).read()) await world.jobs.remove(id);
  // A write would begin a turn later.
  await turn();
  await turn();
  await world.jobs.close();
  assert.deepEqual([ids(world), await world.store.load()], [[], []]);
});

test('Of too many results the fetched ones are removed first, then the oldest; failures cost no result', async (t) => {
  let isFailing = false;
  const world = await createWorld({
    jobsDir: await tempDir(t),
    deps: { maxResultsPerPeer: 2 },
    gate: async (at) => {
      if (at === 'compile' && isFailing) throw new Error('no');
    },
  });
  const build = async (name: string): Promise<string> => {
    const { id, ended } = submitted(world, { name });
    await ended;
    return id;
  };
  const other = submitted(world, { dashboardId: dashboardId('another_peer') });
  await other.ended;
  const first = await build('a.yaml');
  const second = await build('b.yaml');
  await fetched(world, second);
  const third = await build('c.yaml');
  await waitFor(() => ids(world).length === 3);
  assert.deepEqual(
    ids(world),
    [other.id, first, third],
    'what was fetched goes, though an older one is there',
  );
  const fourth = await build('d.yaml');
  await waitFor(() => ids(world).length === 3);
  assert.deepEqual(ids(world), [other.id, third, fourth]);
  isFailing = true;
  const failures = [];
  for (const name of ['e.yaml', 'f.yaml', 'g.yaml']) failures.push(await build(name));
  await waitFor(() => ids(world).length === 5);
  assert.deepEqual(ids(world), [other.id, third, fourth, ...failures.slice(1)]);
  await world.jobs.close();
  assert.deepEqual((await world.store.load()).length, 5);
});

test('Results that expired while no receiver ran are removed at the start', async (t) => {
  const store = createMemoryStore();
  const [old, fresh, cancelled] = [
    exampleRecord({ state: 'failed', createdAt: 1, finishedAt: 2 }),
    exampleRecord({ state: 'failed', createdAt: 3, finishedAt: 900 }),
    exampleRecord({ state: 'cancelled', createdAt: 4, finishedAt: null }),
  ];
  for (const record of [old, fresh, cancelled]) await store.put(record);
  const world = await timed(t, { resultTtlMs: 500 }, store);
  await waitFor(() => ids(world).length === 1);
  assert.deepEqual(ids(world), [fresh.id]);
  await world.jobs.close();
});

test('Nothing expires by a clock that was set back, and nothing after the end of the receiver', async (t) => {
  const clock = manualClock({ wall: 10 * hour });
  const world = await createWorld({
    jobsDir: await tempDir(t),
    deps: { clock, resultTtlMs: hour },
  });
  const { id, ended } = submitted(world);
  await ended;
  clock.jump(-10 * hour);
  clock.advance(5 * hour);
  assert.deepEqual(ids(world), [id]);
  await world.jobs.close();
  clock.jump(10 * hour);
  clock.advance(5 * hour);
  assert.deepEqual([ids(world), clock.waiting], [[id], 0]);
});
