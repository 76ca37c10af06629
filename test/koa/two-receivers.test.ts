/** Two receivers on one configuration directory, as when a new one starts before the old one has stopped. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { createOffloader, dial, loadOffloaderIdentity } from '../../src/koa/offloader.js';
import { dashboardId } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { pairedClient, startReceiver, yaml } from '../support/whole.js';

test('Two receivers act as one server with one key: each accepts peers the other approved, and refuses peers it revoked', async (t) => {
  const one = await startReceiver(t);
  const two = await startReceiver(t, { configDir: join(one.base, 'config') });
  const { pin, pairing, peers } = one.receiver;
  assert.equal(two.receiver.pin, pin);
  const identity = await loadOffloaderIdentity(await tempDir(t));
  const at = (port: number) =>
    createOffloader({ identity, connect: () => dial({ host: '127.0.0.1', port }), label: 'attic' });

  pairing.open();
  assert.equal(await at(one.port).requestPairing({ pin }), 'pending');
  await pairing.approve(identity.dashboardId, pairing.requests()[0]?.pin ?? '');
  await at(two.port).waitForApproval({ pin });
  const session = await at(two.port).openSession({ pin });
  await session.close();

  await peers.revoke(identity.dashboardId);
  await assert.rejects(at(two.port).openSession({ pin }), {
    code: 'REJECTED',
    message: /no_approved_peer/,
  });
});

test('A build of one receiver for a key is not given to another key that the other receiver approved under the same id', async (t) => {
  const one = await startReceiver(t);
  const two = await startReceiver(t, { configDir: join(one.base, 'config') });
  const client = await pairedClient(t, two);
  const session = await client.openSession();
  const bundle = await client.bundle('kitchen.yaml', yaml('kitchen'));
  await session.build({ file: 'kitchen.yaml', bundle, jobId: 'guessed' });
  const { pin } = one.receiver;

  // Another key pairs under the id, and the first receiver approves it.
  const own = await loadOffloaderIdentity(await tempDir(t));
  const identity = { ...own, dashboardId: dashboardId(client.dashboardId) };
  const at = (port: number) =>
    createOffloader({ identity, connect: () => dial({ host: '127.0.0.1', port }), label: 'thief' });
  const { pairing, peers } = one.receiver;
  await assert.rejects(at(one.port).openSession({ pin }), { code: 'REJECTED' });
  assert.equal(await peers.revoke(client.dashboardId), true);
  pairing.open();
  await at(one.port).requestPairing({ pin });
  await pairing.approve(identity.dashboardId, pairing.requests()[0]?.pin ?? '');

  const theirs = await at(two.port).openSession({ pin });
  assert.equal(await session.ended, 'hung_up');
  t.after(() => theirs.close());
  await assert.rejects(theirs.downloadArtifacts('guessed'), { code: 'REJECTED' });
  assert.deepEqual(two.receiver.jobs.list(), []);
});
