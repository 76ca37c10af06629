/** Receivers that crash or stop at each moment of a job, and how the next one continues it. */
import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';

import fc from 'fast-check';

import type { StagedBundle } from '../../src/bundles/store.js';
import { ReceiverError } from '../../src/errors.js';
import { isTerminal, jobStates, type JobRecord } from '../../src/jobs/record.js';
import { afterRestart, afterStop } from '../../src/jobs/registry.js';
import { createMemoryStore } from './memory-store.js';
import { dashboardId } from '../../src/paths/index.js';
import { exampleRecord } from '../../src/testing/index.js';
import { manualClock } from '../async/manual-clock.js';
import { tempDir } from '../support/temp-dir.js';
import { bundleIn, deferred, exampleRequest } from './examples.js';
import { emptyDisk } from './fake-disk.js';
import { createWorld, moments, type Moment, type World, type WorldOptions } from './harness.js';
import { heldAt, statesTold, submitted, waitForStep, type Held } from './held.js';

const peer = exampleRequest().dashboardId;
const artifacts = { bytes: 3, sha256: 'ab'.repeat(32), firmwareOffset: '0x0' } as const;
const remoteContent = { buildPath: false, remoteParts: false, webFiles: false };
const bundle = { bytes: 1, members: 1, remoteContent, esphomeVersion: null, contentSha256: '' };

/** Where a job is when its receiver ends, and where the next one finds it. */
function stateAt(moment: Moment): 'lost' | 'receiving' | 'queued' | 'running' {
  if (moment === 'put:receiving') return 'lost';
  // Being queued and being run are one write when a slot is free.
  if (['keep', 'put:running'].includes(moment)) return 'receiving';
  return isWaiting(moment) ? 'queued' : 'running';
}

/** A job that waits for its ESPHome or for a slot is on record a moment later. */
function isWaiting(moment: Moment): boolean {
  return moment === 'chooseEsphome' || moment === 'slot';
}

/** That a job runs is written while it goes on; no compiler starts before. */
function isWritten(moment: Moment): boolean {
  return ['acquireLease', 'installBundle', 'openBuildDir', 'beforeStart'].includes(moment);
}

type End = 'crash' | 'stop';

/** Ends the world that is held, with its step undone or, in good order, done. */
async function endOf(world: Held, how: End): Promise<void> {
  if (how === 'crash') return world.crash();
  const closing = world.jobs.close();
  await turn();
  world.letGo();
  await closing;
}

async function after(t: TestContext, world: World, options: Partial<WorldOptions> = {}): Promise<World> {
  return createWorld({ jobsDir: await tempDir(t), disk: world.disk, ...options });
}

for (const moment of moments) {
  test(`After a crash at ${moment} the job continues from its record, and ends once`, async (t) => {
    const world = await heldAt(t, moment);
    const { id } = submitted(world);
    await world.reached;
    if (isWaiting(moment)) await waitForStep(world, 'put:queued');
    if (isWritten(moment)) await waitForStep(world, 'put:running');
    await world.crash();
    const next = await after(t, world);
    const was = stateAt(moment);
    if (was === 'lost') assert.deepEqual(next.jobs.list(), []);
    else if (was === 'receiving') {
      assert.equal(next.jobs.find(peer, 'job-1'), undefined, 'its peer may send it again');
      const { state, failureReason, errorMessage } = next.jobs.get(id) ?? assert.fail();
      assert.deepEqual([state, failureReason], ['failed', 'internal']);
      assert.match(errorMessage, /build server restarted/);
    } else {
      assert.equal(next.jobs.find(peer, 'job-1')?.id, id);
      const { state, requeued } = await next.ended(id);
      assert.deepEqual([state, requeued], ['completed', was === 'running']);
      assert.deepEqual(statesTold(next.events, id), ['running', 'completed']);
    }
    await next.jobs.close();
    // The bundle of a job that was not on record belongs to a process that is gone; recovery removes it.
    for (const directory of next.staging)
      if (directory.startsWith('/staging/')) next.staging.delete(directory);
    next.assertAtRest();
  });

  test(`After a stop at ${moment} the job continues, and ends once`, async (t) => {
    const world = await heldAt(t, moment);
    const { id } = submitted(world);
    await world.reached;
    await endOf(world, 'stop');
    const kept = world.jobs.get(id) ?? assert.fail();
    if (moment === 'release') return assert.equal(kept.state, 'completed', 'it was done already');
    assert.deepEqual([kept.state, kept.finishedAt, kept.interrupted], ['queued', null, false]);
    assert.ok(!statesTold(world.events, id).some((state) => ['cancelled', 'failed'].includes(state)));
    const next = await after(t, world);
    const { state, requeued } = await next.ended(id);
    const ran = statesTold(world.events, id).includes('running');
    assert.deepEqual([state, requeued], ['completed', ran]);
    assert.match(await next.jobs.readLog(id), ran ? /^The build server restarted; / : /^\[1\/2\] CXX/);
    await next.jobs.close();
    next.assertAtRest();
  });
}

for (const how of ['crash', 'stop'] as const) {
  test(`A job whose receiver ends twice while it runs (${how}) fails and says so, and is not run again`, async (t) => {
    const world = await heldAt(t, 'compile');
    const { id } = submitted(world);
    await world.reached;
    await endOf(world, how);
    const second = await heldAt(t, 'compile', { disk: world.disk });
    await second.reached;
    assert.equal(second.jobs.get(id)?.state, 'running');
    await endOf(second, how);
    const third = await after(t, second);
    const { state, failureReason, errorMessage } = third.jobs.find(peer, 'job-1') ?? assert.fail();
    assert.deepEqual([state, failureReason], ['failed', 'internal']);
    assert.equal(errorMessage, 'the build server stopped twice while running this job');
    await third.jobs.close();
    assert.ok(!third.steps.includes('compile'));
    third.assertAtRest();
    const fourth = await after(t, third);
    assert.equal(
      fourth.jobs.find(peer, 'job-1')?.errorMessage,
      errorMessage,
      'asked again, it says the same',
    );
  });

  test(`Jobs that wait keep their order through a ${how}, and one that ran goes first`, async (t) => {
    const world = await heldAt(t, 'compile');
    const names = ['a.yaml', 'b.yaml', 'c.yaml', 'd.yaml'];
    const ids = names.map((name) => submitted(world, { name, peerJobId: name }).id);
    await world.reached;
    await waitForStep(world, 'put:queued', 3);
    await turn();
    await endOf(world, how);
    const next = await after(t, world);
    assert.deepEqual(
      next.jobs.list().map(({ id }) => id),
      ids,
    );
    await Promise.all(ids.map((id) => next.ended(id)));
    const started = next.events.flatMap((event) =>
      event.type === 'state' && event.job.state === 'running' ? [event.job.id] : [],
    );
    assert.deepEqual(started, ids);
    next.assertAtRest();
  });

  test(`A restored job is cancelled, replaced and found as any other (${how})`, async (t) => {
    const world = await heldAt(t, 'compile');
    const names = ['a.yaml', 'b.yaml', 'c.yaml'];
    const [ran, waits, old] = names.map((name) => submitted(world, { name, peerJobId: name }).id);
    await world.reached;
    await waitForStep(world, 'put:queued', 2);
    await turn();
    await endOf(world, how);
    const next = await heldAt(t, 'compile', { disk: world.disk });
    await next.reached;
    const ended = [ran, waits, old].map((id) => next.ended(id ?? ''));
    assert.equal(next.jobs.cancelByPeer(peer, 'a.yaml'), true);
    assert.equal(next.jobs.cancelByPeer(peer, 'b.yaml'), true);
    const newer = submitted(next, { name: 'c.yaml', peerJobId: 'newer' });
    const texts = (await Promise.all(ended)).map(({ state, errorMessage }) => `${state}: ${errorMessage}`);
    assert.deepEqual(texts, [
      ...['cancelled: cancelled', 'cancelled: cancelled'],
      'cancelled: replaced by a newer job for the same device',
    ]);
    assert.equal((await newer.ended).state, 'completed');
    assert.deepEqual(next.jobs.queueStatus(), { idle: true, running: false, queueDepth: 0, freeSlots: 1 });
    next.assertAtRest();
  });
}

test('A stop while the bundle is unpacked waits for it, and the job goes on afterwards', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const intake = deferred<StagedBundle>();
  const { id } = world.jobs.submit(exampleRequest(), intake.promise);
  await waitForStep(world, 'put:receiving');
  const closing = world.jobs.close();
  intake.resolve(bundleIn(world));
  await closing;
  assert.equal(world.jobs.get(id)?.state, 'queued');
  const next = await after(t, world);
  assert.equal((await next.ended(id)).state, 'completed');
  next.assertAtRest();
});

test('A bundle that is lost with the restart fails its job, which may be sent again', async (t) => {
  const world = await heldAt(t, 'slot');
  const { id } = submitted(world);
  await waitForStep(world, 'put:queued');
  await turn();
  await world.crash();
  world.staging.clear();
  const next = await after(t, world);
  const { failureReason, errorMessage, interrupted } = await next.ended(id);
  assert.deepEqual([failureReason, interrupted], ['internal', true]);
  assert.match(errorMessage, /is no longer on the build server/);
  assert.equal(next.jobs.find(peer, 'job-1'), undefined);
  assert.equal((await submitted(next).ended).state, 'completed');
  next.assertAtRest();
});

test('The acknowledgement comes once the record is stored, whatever the unpacking does, and before any state', async (t) => {
  const world = await heldAt(t, 'put:receiving');
  const intake = deferred<StagedBundle>();
  const seen: string[] = [];
  world.jobs.subscribe((event) => void seen.push(event.type === 'state' ? event.job.state : event.type));
  const { id } = world.jobs.submit(exampleRequest(), intake.promise, () => seen.push('acknowledged'));
  await world.reached;
  intake.reject(new ReceiverError('BUNDLE', 'bad'));
  await turn();
  assert.equal(seen.length, 0);
  const ended = world.ended(id);
  world.letGo();
  await ended;
  assert.deepEqual(seen, ['acknowledged', 'failed', 'queue']);
  const never = world.jobs.submit(exampleRequest(), new Promise(() => {}), () => seen.push('again'));
  await waitForStep(world, 'put:receiving', 2);
  await turn();
  assert.equal(seen.at(-1), 'again', 'it does not wait for the bundle');
  world.jobs.cancel(never.id);
});

test('A job whose record cannot be stored is not acknowledged, and nothing of it is left', async (t) => {
  const disk = emptyDisk();
  const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
  let isFull = true;
  const memory = createMemoryStore(disk.place);
  const put = (record: JobRecord): Promise<void> => (isFull ? Promise.reject(full) : memory.put(record));
  const world = await createWorld({ jobsDir: await tempDir(t), disk, store: { ...memory, put } });
  const answer = deferred<unknown>();
  world.jobs.submit(exampleRequest(), Promise.resolve(bundleIn(world)), (fault) =>
    answer.resolve(fault?.error),
  );
  assert.equal(await answer.promise, full);
  assert.deepEqual([world.jobs.list(), world.events], [[], []]);
  const never = deferred<StagedBundle>();
  const refused = deferred();
  world.jobs.submit(exampleRequest(), never.promise, () => refused.resolve());
  await refused.promise;
  isFull = false;
  assert.equal((await submitted(world).ended).state, 'completed', 'the same job is taken afterwards');
  never.resolve(bundleIn(world));
  await world.jobs.close();
  assert.equal(disk.place.records.size, 1);
  world.assertAtRest();
});

test('An end that cannot be stored is reported, frees its slot, and is stored as soon as the disk allows it', async (t) => {
  const disk = emptyDisk();
  const clock = manualClock();
  const memory = createMemoryStore(disk.place);
  let isReadOnly = false;
  const refusal = Object.assign(new Error('open'), { code: 'EROFS' });
  const put = (record: JobRecord): Promise<void> =>
    isReadOnly ? Promise.reject(refusal) : memory.put(record);
  const world = await heldAt(t, 'storeArtifacts', { disk, store: { ...memory, put }, deps: { clock } });
  const { id, ended } = submitted(world);
  await world.reached;
  isReadOnly = true;
  world.letGo();
  assert.equal((await ended).state, 'completed');
  assert.deepEqual([world.jobs.queueStatus().idle, world.leases.size], [true, 0]);
  assert.equal(disk.place.records.get(id)?.state, 'running');
  assert.ok(!world.steps.includes('discard'), 'a restart now would need the bundle');
  clock.advance(60_000);
  await turn();
  isReadOnly = false;
  for (let n = 0; n < 1_000 && disk.place.records.get(id)?.state !== 'completed'; n += 1) {
    clock.advance(60_000);
    await turn();
  }
  assert.equal(disk.place.records.get(id)?.state, 'completed');
  await waitForStep(world, 'discard');
  await world.jobs.close();
  world.assertAtRest();
});

test('Records that could not be stored are stored when the receiver closes', async (t) => {
  const disk = emptyDisk();
  const memory = createMemoryStore(disk.place);
  let isReadOnly = false;
  const put = (record: JobRecord): Promise<void> =>
    isReadOnly ? Promise.reject(new Error('read-only')) : memory.put(record);
  const clock = manualClock();
  const world = await heldAt(t, 'storeArtifacts', { disk, store: { ...memory, put }, deps: { clock } });
  const { id, ended } = submitted(world);
  await world.reached;
  isReadOnly = true;
  world.letGo();
  await ended;
  isReadOnly = false;
  await world.jobs.close();
  assert.equal(disk.place.records.get(id)?.state, 'completed');
});

test('Only the jobs of a peer that stays offline are cancelled after the grace time', async (t) => {
  const world = await heldAt(t, 'compile');
  const other = dashboardId('another_peer');
  const mine = ['a.yaml', 'b.yaml', 'c.yaml'].map((name) => submitted(world, { name, peerJobId: name }).id);
  const theirs = submitted(world, { dashboardId: other }).id;
  await world.reached;
  await waitForStep(world, 'put:queued', 3);
  await turn();
  await world.crash();

  const clock = manualClock();
  const deps = { clock, absentPeerGraceMs: 10_000 };
  const next = await heldAt(t, 'compile', { disk: world.disk, deps });
  await next.reached;
  next.jobs.setPeerConnected(other, true);
  clock.advance(9_999);
  next.jobs.setPeerConnected(peer, true);
  clock.advance(60_000);
  assert.equal(next.jobs.get(mine[0] ?? '')?.state, 'running', 'its peer was back in time');
  next.jobs.setPeerConnected(peer, false);
  next.jobs.setPeerConnected(peer, false);
  clock.advance(9_999);
  await turn();
  assert.ok(next.jobs.list().every((job) => job.state !== 'cancelled'));
  const ended = mine.map((id) => next.ended(id));
  const kept = next.ended(theirs);
  clock.advance(1);
  next.letGo();
  for (const job of await Promise.all(ended)) {
    assert.deepEqual(
      [job.state, job.errorMessage],
      ['cancelled', 'the dashboard was offline for longer than absentPeerGraceMs'],
    );
  }
  assert.equal((await kept).state, 'completed');
  next.jobs.setPeerConnected(other, false);
  await next.jobs.close();
  assert.equal(clock.waiting, 0);
  next.assertAtRest();
});

test('Jobs of a receiver that later proves to be gone are taken over, unless there is a newer one', async (t) => {
  const left = deferred<readonly JobRecord[]>();
  const store = createMemoryStore();
  const world: World = await createWorld({
    jobsDir: await tempDir(t),
    store: { ...store, loadLeft: () => left.promise },
  });
  const newer = submitted(world, { name: 'a.yaml', peerJobId: 'a' });
  await newer.ended;
  const facts = { bundle, createdAt: 5 };
  const records = ['a.yaml', 'b.yaml'].map((name) =>
    exampleRecord({ ...exampleRequest({ name, peerJobId: name.slice(0, 1) }), ...facts, state: 'queued' }),
  );
  for (const { id } of records) world.staging.add(`/kept/${id}`);
  const [old, good] = records.map(({ id }) => id);
  const ended = world.ended(good ?? '');
  left.resolve(records);
  assert.equal((await ended).state, 'completed');
  assert.equal(world.jobs.get(old ?? '')?.state, 'cancelled');
  assert.deepEqual(statesTold(world.events, old ?? ''), [], 'its id means the newer job by now');
  assert.equal(world.jobs.find(peer, 'a')?.id, newer.id);
  assert.deepEqual(
    world.jobs.list().map(({ id }) => id),
    [old, good, newer.id],
  );
  await world.jobs.close();
  assert.deepEqual([...world.staging], []);
});

const aRecord: fc.Arbitrary<JobRecord> = fc
  .record({
    ...{ state: fc.constantFrom(...jobStates), hasBundle: fc.boolean(), requeued: fc.boolean() },
    ...{ device: fc.nat(1), peerJobId: fc.nat(2), target: fc.constantFrom('compile', 'clean') },
  })
  .map(({ hasBundle, device, peerJobId, ...facts }) =>
    exampleRecord({
      ...exampleRequest({ name: `d${device}.yaml`, peerJobId: `job-${peerJobId}` }),
      ...{ target: facts.target, state: facts.state, requeued: facts.requeued },
      bundle: hasBundle ? bundle : null,
      artifacts: facts.state === 'completed' ? artifacts : null,
    }),
  );

test('For any records, no two jobs continue for one device or one id, and ended jobs stay unchanged', () => {
  fc.assert(
    fc.property(fc.array(aRecord, { maxLength: 12 }), fc.nat(12), (records, knownCount) => {
      const all = records.map((record, createdAt) => ({ ...record, createdAt }));
      const [known, left] = [all.slice(0, knownCount).filter(isTerminal), all.slice(knownCount)];
      const result = afterRestart(left, known, 99);
      assert.deepEqual(
        result.map(({ id }) => id),
        left.map(({ id }) => id),
      );
      const live = result.filter((record) => !isTerminal(record));
      for (const key of ['device', 'peerJobId'] as const) {
        const names = live.map((record) => `${record[key]} ${key === 'device' ? record.target : ''}`);
        assert.equal(new Set(names).size, names.length, key);
      }
      for (const [index, before] of left.entries()) {
        const now = result[index] as JobRecord;
        if (isTerminal(before)) assert.equal(now, before);
        else if (isTerminal(now)) assert.equal(now.finishedAt, 99);
        else {
          assert.equal(now.state, 'queued');
          assert.ok(now.bundle);
          assert.equal(now.requeued, before.requeued || before.state === 'running');
        }
        // Restarts that follow each other change nothing more, for nothing of it runs.
        assert.equal(afterStop(now, 100), now);
      }
    }),
    { numRuns: 300 },
  );
});
