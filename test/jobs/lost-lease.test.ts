/** Jobs that lose their lease run once more from the beginning, and never over another owner's work. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ReceiverError } from '../../src/errors.js';
import { tempDir } from '../support/temp-dir.js';
import { createWorld, type Moment, type World } from './harness.js';
import { heldAt, statesTold, submitted } from './held.js';

const underLease: readonly Moment[] = [
  'installBundle',
  'openBuildDir',
  'precheck',
  'compile',
  'recordBuild',
  'verify',
  'storeArtifacts',
];

for (const moment of underLease) {
  test(`A lease lost at ${moment} reruns the job once by itself`, async (t) => {
    const world = await heldAt(t, moment);
    const { id, ended } = submitted(world);
    await world.reached;
    for (const lease of world.leases.values()) lease.lose();
    world.letGo();
    const { state, attempt } = await ended;
    assert.deepEqual({ state, attempt }, { state: 'completed', attempt: 2 });
    assert.deepEqual(statesTold(world.events, id), ['queued', 'running', 'completed']);
    assert.equal(world.steps.filter((step) => step === 'release').length, 2);
    world.assertAtRest();
  });
}

test('Nothing is touched after the lease was lost', async (t) => {
  const world = await heldAt(t, 'compile');
  const { ended } = submitted(world);
  await world.reached;
  for (const lease of world.leases.values()) lease.lose();
  world.letGo();
  await ended;
  assert.equal(world.steps.filter((step) => step === 'openBuildDir').length, 2);
  assert.equal(world.steps.filter((step) => step === 'closeBuildDir').length, 1);
});

for (const moment of underLease) {
  test(`Another owner that comes at ${moment}, and is known only on disk, has the job run once more`, async (t) => {
    const world = await heldAt(t, moment);
    const { ended } = submitted(world);
    await world.reached;
    for (const lease of world.leases.values()) lease.steal();
    world.letGo();
    assert.deepEqual([(await ended).state, (await ended).attempt], ['completed', 2]);
    world.assertAtRest();
  });
}

test('A lease that is lost twice fails the job as lock_lost', async (t) => {
  const world: World = await createWorld({
    jobsDir: await tempDir(t),
    async gate(at) {
      if (at === 'compile') for (const lease of world.leases.values()) lease.lose();
    },
  });
  const { state, failureReason, attempt } = await submitted(world).ended;
  assert.deepEqual([state, failureReason, attempt], ['failed', 'lock_lost', 2]);
  world.assertAtRest();
});

test('A job is not run again over the configuration of another owner that had the lock meanwhile', async (t) => {
  const world: World = await createWorld({
    jobsDir: await tempDir(t),
    async gate(at) {
      if (at === 'compile') for (const lease of world.leases.values()) lease.lose();
      if (at === 'release') for (const [name, fence] of world.fences) world.fences.set(name, fence + 1);
    },
  });
  const { failureReason, errorMessage } = await submitted(world).ended;
  assert.deepEqual(
    [failureReason, errorMessage],
    ['lock_lost', 'another build server took over this device during the job'],
  );
  assert.equal(world.steps.filter((step) => step === 'compile').length, 1);
});

test('A clean that loses its lease is done once more', async (t) => {
  const world = await heldAt(t, 'clean');
  const { ended } = submitted(world, { target: 'clean' });
  await world.reached;
  for (const lease of world.leases.values()) lease.lose();
  world.letGo();
  assert.deepEqual([(await ended).state, (await ended).attempt], ['completed', 2]);
  world.assertAtRest();
});

test('An error after the loss of the lease is attributed to the loss', async (t) => {
  const world: World = await createWorld({
    jobsDir: await tempDir(t),
    async gate(at) {
      if (at !== 'verify' || world.steps.filter((step) => step === 'verify').length > 1) return;
      for (const lease of world.leases.values()) lease.lose();
      throw new ReceiverError('WROTE_ELSEWHERE', 'the other owner has wiped it');
    },
  });
  const { state, attempt } = await submitted(world).ended;
  assert.deepEqual([state, attempt], ['completed', 2]);
});
