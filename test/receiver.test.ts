/** What a receiver does to a peer's device for its host, and what becomes of that when it is closed. */
import assert from 'node:assert/strict';
import { mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { systemClock } from '../src/async/clock.js';
import { createReserve } from '../src/disk/reserve.js';
import { acquireLease } from '../src/locks/lease.js';
import { silentLog as log } from '../src/log.js';
import { resolveOptions } from '../src/options/core.js';
import { createPaths } from '../src/paths/index.js';
import { loadIdentity } from '../src/peers/identity.js';
import { openPeerTable } from '../src/peers/peers.js';
import { openReceiver } from '../src/receiver.js';
import type { ReceiverCore } from '../src/receiver-api.js';
import { createOwners } from '../src/retention/peer-data.js';
import { standInEsphome } from '../src/testing/index.js';
import { keyOf, mine, other, plant } from './retention/place.js';
import { defaultTiming as timing } from './support/options.js';
import { recordingLog } from './support/recording-log.js';
import { tempDir, type Cleanups } from './support/temp-dir.js';
import { waitFor } from './support/wait-for.js';
import { startReceiver } from './support/whole.js';

const key = keyOf(mine, 'kitchen');
const configuration = `.esphome/.remote_builds/${mine}/kitchen/config/kitchen.yaml`;

/** With a build of a device of each of two peers. */
async function receiverWithBuilds(t: Cleanups): Promise<ReceiverCore> {
  const configDir = await tempDir(t);
  const receiver = await openReceiver(
    resolveOptions({ configDir, esphome: standInEsphome, provisionVersions: false }),
  );
  t.after(() => receiver.close());
  for (const peer of [mine, other]) await plant(receiver.paths.layout, keyOf(peer, 'kitchen'));
  return receiver;
}

async function namesIn({ paths }: ReceiverCore): Promise<string[]> {
  return (await readdir(paths.layout.subtree(key))).toSorted();
}

for (const act of ['clean', 'removeDevice'] as const) {
  test(`A receiver that is closed while \`${act}\` waits for a busy device ends the wait, and nothing is gone`, async (t) => {
    const receiver = await receiverWithBuilds(t);
    const { layout } = receiver.paths;
    const before = await namesIn(receiver);
    const asked: string[] = [];
    const busy = await acquireLease({ locksDir: layout.locksDir, key, reason: 'a build', timing, log });
    t.after(() => busy.release());
    const waiting = receiver[act](configuration).then(
      () => asked.push('done'),
      (error: { code?: string }) => asked.push(error.code ?? 'another error'),
    );
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(asked, []);

    await receiver.close();
    await waiting;
    assert.deepEqual(asked, ['CANCELLED']);
    assert.deepEqual(await namesIn(receiver), before);
    assert.deepEqual(await readdir(layout.trashDir), []);
    await assert.rejects(receiver[act](configuration), { code: 'STATE' });
    assert.deepEqual(await namesIn(receiver), before);
  });

  test(`\`${act}\` goes on when the device is free, and touches nothing of another peer`, async (t) => {
    const receiver = await receiverWithBuilds(t);
    const { layout } = receiver.paths;
    const busy = await acquireLease({ locksDir: layout.locksDir, key, reason: 'a build', timing, log });
    const done = receiver[act](configuration);
    await busy.release();
    await done;
    const left = act === 'clean' ? ['.config.from', 'config', 'out', 'storage'] : [];
    assert.deepEqual(await namesIn(receiver).catch(() => []), left);
    assert.ok((await readdir(layout.subtree(keyOf(other, 'kitchen')))).includes('build'));
    await waitFor(async () => (await readdir(layout.trashDir)).length === 0, { what: 'an empty trash' });
    await receiver[act](configuration);
    await assert.rejects(receiver[act]('kitchen.yaml'), { code: 'STATE' });
  });
}

test('A link in the place of a device is removed itself, a peer whose directory is one is refused', async (t) => {
  const receiver = await receiverWithBuilds(t);
  const { buildsDir, layout } = receiver.paths;
  const outside = await tempDir(t);
  await mkdir(join(outside, 'attic'));
  await writeFile(join(outside, 'attic', 'canary'), 'alive');
  await symlink(join(outside, 'attic'), join(buildsDir, mine, 'attic'));
  await receiver.removeDevice(configuration.replaceAll('kitchen', 'attic'));
  assert.deepEqual(await readdir(join(buildsDir, mine)), ['kitchen']);
  await symlink(outside, join(buildsDir, 'dashboard-linked'));
  const linked = configuration.replace(mine, 'dashboard-linked').replaceAll('kitchen', 'attic');
  await assert.rejects(receiver.removeDevice(linked), { code: 'TRAVERSAL' });
  await assert.rejects(receiver.clean(linked), { code: 'TRAVERSAL' });
  assert.deepEqual(await readdir(join(outside, 'attic')), ['canary']);
  assert.deepEqual(await readdir(layout.trashDir), []);
});

test('A start removes what another key has left under the id of a peer, before it is ready', async (t) => {
  const configDir = await tempDir(t);
  const options = resolveOptions({ configDir, esphome: standInEsphome, provisionVersions: false });
  const { layout } = createPaths({ configDir });
  await mkdir(layout.ownersDir, { recursive: true });
  await plant(layout, key);
  const removeData = (): Promise<boolean> => Promise.resolve(true);
  await loadIdentity(options.stateDir, log);
  const { spend } = createReserve([], log);
  await createOwners({ ownersDir: layout.ownersDir, removeData, spend, log }).claim(mine, 'ab'.repeat(32));
  const peers = await openPeerTable(options.stateDir, { clock: systemClock, log });
  const nobody = { label: '', labelAuto: false, friendlyName: '', haAddon: false };
  const place = { pairedAt: 0, address: '', connectBackPort: 0 };
  await peers.add({ dashboardId: mine, publicKey: Buffer.alloc(32, 1), ...nobody, ...place });

  const receiver = await openReceiver(options);
  t.after(() => receiver.close());
  await assert.rejects(namesIn(receiver), { code: 'ENOENT' });
});

test('A Git configuration that cannot be read is refused, and the error names it', async (t) => {
  const gitConfig = join(await tempDir(t), 'missing');
  await assert.rejects(startReceiver(t, { gitConfig }), {
    code: 'OPTIONS',
    message: `invalid gitConfig: expected a readable file, got "${gitConfig}" (ENOENT)`,
  });
});

test('A start warns about UTC if TZ is not set, and does not if it is', async (t) => {
  const warnings = async (environment: Record<string, string>): Promise<string[]> => {
    const recorded = recordingLog();
    await startReceiver(t, { log: recorded, environment: { PATH: '/usr/bin:/bin', ...environment } });
    return recorded.entries.filter((entry) => entry.startsWith('warn: time zone'));
  };
  const isUtc = /^(?:Etc\/)?UTC$/.test(new Intl.DateTimeFormat().resolvedOptions().timeZone);
  assert.equal((await warnings({})).length, isUtc ? 1 : 0);
  assert.equal((await warnings({ TZ: 'UTC' })).length, 0);
});

test('A start without the key or the peers on which builds rely is refused, and changes nothing', async (t) => {
  const configDir = await tempDir(t);
  const options = resolveOptions({ configDir, esphome: standInEsphome, provisionVersions: false });
  const { layout } = createPaths({ configDir });
  const { stateDir } = options;
  await (await openReceiver(options)).close();
  await plant(layout, key);
  await assert.rejects(openReceiver(options), {
    code: 'STATE',
    message: /peers\.json is missing|the file is missing/,
  });
  const peers = await openPeerTable(stateDir, { clock: systemClock, log });
  const nobody = { label: '', labelAuto: false, friendlyName: '', haAddon: false };
  const place = { pairedAt: 0, address: '', connectBackPort: 0 };
  await peers.add({ dashboardId: mine, publicKey: Buffer.alloc(32, 1), ...nobody, ...place });
  await (await openReceiver(options)).close();
  await rm(join(stateDir, 'identity.key'));
  const before = (await readdir(stateDir)).toSorted();
  await assert.rejects(openReceiver(options), { code: 'STATE', message: /identity key .* is missing/ });
  assert.deepEqual((await readdir(stateDir)).toSorted(), before);
  const anew = await openReceiver({ ...options, newIdentity: true });
  assert.equal(anew.peers.list().length, 1, 'the intact file is kept');
  await anew.close();
});

test('The lock of a device is removed with the device, also by a sweep after somebody else removed it', async (t) => {
  const receiver = await receiverWithBuilds(t);
  const { layout } = receiver.paths;
  const locks = async (): Promise<string[]> =>
    (await readdir(layout.locksDir)).filter((name) => /^[0-9a-f]{40}$/.test(name));
  for (const name of ['kitchen', 'attic', 'hall']) {
    await plant(layout, keyOf(mine, name));
    await receiver.removeDevice(configuration.replaceAll('kitchen', name));
  }
  assert.deepEqual(await locks(), []);
  await plant(layout, keyOf(mine, 'porch'));
  await receiver.retention.sweep();
  await receiver.clean(configuration.replaceAll('kitchen', 'porch'));
  assert.equal((await locks()).length, 1);
  await rm(layout.subtree(keyOf(mine, 'porch')), { recursive: true });
  await receiver.retention.sweep();
  assert.deepEqual(await locks(), []);
});
