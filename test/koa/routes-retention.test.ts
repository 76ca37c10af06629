/**
 * Retention in a whole receiver with the stand-in compiler: over the link, the API and the admin routes. Covers
 * src/retention/usage.ts.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { measure } from '../../src/disk/usage.js';
import { messageOf } from '../../src/errors.js';
import { createReceiver } from '../../src/index.js';
import { file as memberFile, manifest, tar } from '../bundles/archives.js';
import { waitFor } from '../support/wait-for.js';
import { newClient, pairedClient, startReceiver, yaml, type Client, type Whole } from '../support/whole.js';

const remote = (client: Client, device: string): string =>
  `.esphome/.remote_builds/${client.dashboardId}/${device}/config/${device}.yaml`;

async function build(
  client: Client,
  device: string,
  knobs = '',
): Promise<{ status: string; errorMessage: string }> {
  const session = await client.openSession();
  const file = `${device}.yaml`;
  const result = await session.build({ file, bundle: await client.bundle(file, yaml(device, knobs)) });
  await session.close();
  return result;
}

async function usageOf({ receiver }: Whole, client: Client, devices: number) {
  return waitFor(async () => {
    const usage = await receiver.retention.usage();
    const peer = usage.peers.find((each) => each.dashboardId === client.dashboardId);
    const isKnown = peer?.devices.length === devices && peer.devices.every(({ sizes }) => sizes !== null);
    return isKnown ? peer : undefined;
  });
}

test('Usage by peer and device is known after a build and matches a walk of the disk', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  await build(client, 'kitchen');
  await build(client, 'hall');
  const peer = await usageOf(whole, client, 2);
  for (const { device, bytes } of peer.devices) {
    const { diskBytes } = await measure(whole.receiver.paths.resolveDataDir(remote(client, device)));
    assert.ok(Math.abs(bytes - diskBytes) <= 4_096, `${device}: ${bytes} of ${diskBytes}`);
  }
  assert.ok(peer.results > 0);
});

test('A lowered quota takes effect at once: the least recently used build is removed, its result stays', async (t) => {
  const whole = await startReceiver(t);
  const { receiver } = whole;
  const client = await pairedClient(t, whole);
  await build(client, 'kitchen');
  await build(client, 'hall');
  const peer = await usageOf(whole, client, 2);
  await receiver.retention.setLimits({ maxBuildBytesPerPeer: peer.builds - 1 });
  assert.ok(!existsSync(receiver.paths.resolveDataDir(remote(client, 'kitchen'))));
  assert.ok(existsSync(receiver.paths.resolveDataDir(remote(client, 'hall'))));
  assert.ok(receiver.jobs.list().every(({ artifacts }) => artifacts !== null));
  await assert.rejects(receiver.retention.setLimits({ buildTtlMs: 1 }), { code: 'OPTIONS' });
});

test('An upload without enough room is refused before its first byte, with a message for its user', async (t) => {
  const whole = await startReceiver(t, { retention: { maxBuildBytesPerPeer: 100 } });
  const client = await pairedClient(t, whole);
  await assert.rejects(build(client, 'kitchen'), {
    code: 'REJECTED',
    message: /quota_exceeded: the builds of this dashboard/,
  });
  assert.deepEqual(whole.receiver.jobs.list(), []);
  assert.deepEqual(await readdir(whole.receiver.paths.layout.uploadsDir), []);
});

test('Bundles that unpack to more than their dashboard’s share are refused, and usage shows those that wait', async (t) => {
  const whole = await startReceiver(t, { slots: 1, retention: { maxBuildBytesPerPeer: 50_000_000 } });
  const { receiver } = whole;
  const client = await pairedClient(t, whole);
  const slot = await receiver.jobs.enqueueLocal('own.yaml');
  const session = await client.openSession();
  const waiting = [];
  for (const n of [1, 2, 3]) {
    const name = `bomb${n}.yaml`;
    const members = [memberFile(name, yaml(`bomb${n}`)), memberFile('zeros', Buffer.alloc(20_000_000))];
    const bundle = gzipSync(tar(manifest({ config_filename: name }), ...members));
    assert.ok(bundle.length < 50_000);
    const ended = session.build({ file: name, bundle }).then(
      ({ status, errorMessage }) => `${status} ${errorMessage}`,
      (error: unknown) => messageOf(error),
    );
    waiting.push(ended);
    if (n < 3)
      await waitFor(() => receiver.jobs.list().filter(({ state }) => state === 'queued').length === n);
  }
  // Unpacking can be slower than the acknowledgement, so it is the upload or the job that is refused.
  assert.match(
    (await waiting[2]) ?? '',
    /quota_exceeded: the builds of this dashboard are limited to 0\.1 GB/,
  );
  const { staged, peers } = await receiver.retention.usage();
  assert.ok(staged > 40_000_000 && staged < 50_000_000, `${staged}`);
  assert.equal(peers[0]?.staged, staged);
  assert.equal((await readdir(receiver.paths.layout.uploadsDir)).length, 2);
  slot.release();
  for (const ended of waiting.slice(0, 2)) assert.match(await ended, /^completed/);
  assert.equal((await receiver.retention.usage()).staged, 0);
});

test('A receiver whose directories are removed while it runs continues, and loses no later job', async (t) => {
  const whole = await startReceiver(t);
  const client = await pairedClient(t, whole);
  await build(client, 'kitchen');
  await rm(whole.receiver.paths.layout.receiverDir, { recursive: true, maxRetries: 20 });
  assert.deepEqual(await build(client, 'hall').then(({ status }) => status), 'completed');
  await usageOf(whole, client, 2);
  await whole.receiver.retention.sweep();
  const [own] = await readdir(whole.receiver.paths.layout.devicesDir);
  assert.ok(own, 'the use of the device is on record');
  await whole.receiver.close();
  const again = await createReceiver(whole.options);
  t.after(() => again.close());
  const [job, ...others] = again.jobs.list();
  assert.deepEqual([job?.file, job?.state, others], ['hall.yaml', 'completed', []]);
});

test('A clean removes the build and keeps configuration and sidecar; a reset reports what it frees', async (t) => {
  const whole = await startReceiver(t);
  const { receiver } = whole;
  const client = await pairedClient(t, whole);
  await build(client, 'kitchen');
  await build(client, 'hall');
  await usageOf(whole, client, 2);
  const subtree = receiver.paths.resolveDataDir(remote(client, 'kitchen'));
  await receiver.clean(remote(client, 'kitchen'));
  const left = await readdir(subtree);
  assert.ok(left.includes('config') && left.includes('storage') && !left.includes('build'), left.join(' '));
  await assert.rejects(receiver.clean('kitchen.yaml'), { code: 'STATE' });
  await assert.rejects(receiver.clean('../kitchen.yaml'), { code: 'TRAVERSAL' });

  const { retention } = receiver;
  const dry = await retention.reset({ dashboardId: client.dashboardId }, { dryRun: true });
  assert.ok(dry.freedBytes > 0);
  const hall = receiver.paths.resolveDataDir(remote(client, 'hall'));
  assert.ok(existsSync(join(hall, 'build')));
  const report = await retention.reset('all');
  assert.equal(report.removed.length, 2);
  assert.ok(!existsSync(join(hall, 'build')) && existsSync(join(hall, 'config')));
  await assert.rejects(retention.reset({ version: '2020.1.0' }), { code: 'NOT_FOUND' });
  await assert.rejects(retention.reset({ configuration: 'kitchen.yaml' }), { code: 'STATE' });
});

test('Data kept at a revoke is available to the same key again, and to no other key with the same id', async (t) => {
  const whole = await startReceiver(t);
  const { receiver } = whole;
  const client = await pairedClient(t, whole);
  await build(client, 'kitchen');
  const subtree = receiver.paths.resolveDataDir(remote(client, 'kitchen'));

  assert.equal(await receiver.peers.revoke(client.dashboardId, { data: 'keep' }), true);
  assert.ok(existsSync(join(subtree, 'build')));
  assert.equal(receiver.jobs.list().length, 1);
  receiver.pairing.open();
  await client.offloader.requestPairing({ pin: receiver.pin });
  const again = receiver.pairing.requests()[0];
  assert.ok(again);
  await receiver.pairing.approve(again.dashboardId, again.pin);
  assert.ok(existsSync(join(subtree, 'build')));

  await receiver.peers.revoke(client.dashboardId, { data: 'keep' });
  const thief = await newClient(t, whole, 'thief', whole.port, client.dashboardId);
  await thief.offloader.requestPairing({ pin: receiver.pin });
  const theirs = receiver.pairing.requests()[0];
  assert.ok(theirs);
  assert.deepEqual([theirs.dashboardId, theirs.pin === again.pin], [client.dashboardId, false]);
  await receiver.pairing.approve(theirs.dashboardId, theirs.pin);
  assert.ok(!existsSync(subtree));
  assert.deepEqual(receiver.jobs.list(), []);
});

test("Revoking a peer's id in another letter case does not affect the peer", async (t) => {
  const whole = await startReceiver(t);
  const { receiver } = whole;
  const client = await pairedClient(t, whole);
  await build(client, 'kitchen');
  const swapped = client.dashboardId.replace(/[a-z]/gi, (letter) =>
    letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase(),
  );
  assert.equal(await receiver.peers.revoke(swapped), false);
  assert.equal(await receiver.peers.revoke(client.dashboardId, { data: 'keep' }), true);
  receiver.pairing.open();
  await client.offloader.requestPairing({ pin: receiver.pin });
  await receiver.pairing.approve(client.dashboardId, receiver.pairing.requests()[0]?.pin ?? '');
  assert.ok(existsSync(receiver.paths.resolveDataDir(remote(client, 'kitchen'))));
});
