/** A whole receiver on a volume of its own that is completely full, in bytes or in files: whatever makes room works. */
import assert from 'node:assert/strict';
import { readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { systemClock } from '../../src/async/clock.js';
import { namesIn } from '../../src/disk/names.js';
import { silentLog } from '../../src/log.js';
import { resolveOptions } from '../../src/options/core.js';
import type { CoreOptions } from '../../src/options/core-options.js';
import { createPaths, type Layout } from '../../src/paths/index.js';
import { createReceiver } from '../../src/index.js';
import { createOffloader, dial, loadOffloaderIdentity, makeBundle } from '../../src/koa/offloader.js';
import { loadIdentity } from '../../src/peers/identity.js';
import { openPeerTable } from '../../src/peers/peers.js';
import { openReceiver } from '../../src/receiver.js';
import type { ReceiverCore } from '../../src/receiver-api.js';
import { standInEsphome } from '../../src/testing/index.js';
import { recordingLog } from '../support/recording-log.js';
import { fillFiles, fillVolume, smallVolume } from '../support/small-volume.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { keyOf, mine, other, plant } from './place.js';

const publicKey = Buffer.alloc(32, 1);
const devices = ['attic', 'hall', 'kitchen', 'porch'];
const configurationOf = (device: string): string =>
  `.esphome/.remote_builds/${mine}/${device}/config/${device}.yaml`;

type Filling = 'bytes' | 'files';

interface FullPlace {
  readonly layout: Layout;
  readonly stateDir: string;
  open(changes?: Partial<CoreOptions>): Promise<ReceiverCore>;
  fill(): Promise<void>;
}

/** With a paired dashboard and builds of four of its devices. */
async function place(t: TestContext, filling: Filling): Promise<FullPlace | null> {
  const configDir = await smallVolume(t, { megabytes: 24, files: 3_000 });
  if (configDir === null) return null;
  const { layout } = createPaths({ configDir });
  const opened: ReceiverCore[] = [];
  t.after(async () => {
    for (const receiver of opened) await receiver.close();
  });
  const base = { configDir, esphome: standInEsphome, provisionVersions: false, minFreeDiskBytes: 0 };
  const { stateDir } = resolveOptions(base);
  await loadIdentity(stateDir, silentLog);
  const peers = await openPeerTable(stateDir, { clock: systemClock, log: silentLog });
  for (const dashboardId of [mine, other]) {
    await peers.add({
      ...{ dashboardId, publicKey, label: '', labelAuto: false, friendlyName: '', haAddon: false },
      ...{ pairedAt: 1, address: '', connectBackPort: 0 },
    });
  }
  for (const device of devices) await plant(layout, keyOf(mine, device), 100_000);
  return {
    layout,
    stateDir,
    async open(changes = {}) {
      const receiver = await openReceiver(resolveOptions({ ...base, ...changes }));
      opened.push(receiver);
      return receiver;
    },
    fill: () => (filling === 'bytes' ? fillVolume(configDir) : fillFiles(configDir)),
  };
}

const present = async ({ layout }: FullPlace): Promise<string[]> =>
  (await namesIn(join(layout.buildsDir, mine))).toSorted();

const hasBuild = async ({ layout }: FullPlace, device: string): Promise<boolean> =>
  (await readdir(layout.subtree(keyOf(mine, device)))).includes('build');

for (const filling of ['bytes', 'files'] as const) {
  const without = filling === 'bytes' ? 'without a free byte' : 'that can hold no more files';

  test(`On a volume ${without}, clean, reset and the removal of a device work`, async (t) => {
    const here = await place(t, filling);
    if (here === null) return;
    const receiver = await here.open();
    await here.fill();
    await assert.rejects(writeFile(join(here.layout.buildsDir, 'file'), 'text'), { code: 'ENOSPC' });
    await rm(join(here.layout.buildsDir, 'file'), { force: true });
    await receiver.clean(configurationOf('attic'));
    assert.equal(await hasBuild(here, 'attic'), false);
    await here.fill();
    const { removed, left } = await receiver.retention.reset({ dashboardId: mine });
    assert.deepEqual([removed.length, left], [4, []]);
    await here.fill();
    await receiver.removeDevice(configurationOf('hall'));
    assert.deepEqual(await present(here), ['attic', 'kitchen', 'porch']);
  });

  test(`On a volume ${without}, lower limits remove builds, and a sweep those that are over`, async (t) => {
    const here = await place(t, filling);
    if (here === null) return;
    const receiver = await here.open();
    await receiver.retention.sweep();
    await here.fill();
    const { removed } = await receiver.retention.setLimits({ maxBuildBytes: 400_000 });
    assert.ok(removed.length > 0);
    assert.ok((await receiver.retention.usage()).builds <= 400_000);
    await here.fill();
    await receiver.retention.setLimits({ maxBuildBytes: null, buildTtlMs: 3_600_000 });
    assert.equal((await receiver.retention.sweep()).left.length, 0);
  });

  test(`On a volume ${without}, a revocation is saved and removes the builds`, async (t) => {
    const here = await place(t, filling);
    if (here === null) return;
    const receiver = await here.open();
    await here.fill();
    assert.equal(await receiver.peers.revoke(mine), true);
    assert.deepEqual(await present(here), []);
    const saved = await openPeerTable(here.stateDir, { clock: systemClock, log: silentLog });
    assert.deepEqual(
      saved.list().map(({ dashboardId }) => dashboardId),
      [other],
    );
  });

  test(`On a volume ${without}, a receiver starts even if its reserve is used up`, async (t) => {
    const here = await place(t, filling);
    if (here === null) return;
    await (await here.open()).close();
    for (const parent of [here.layout.receiverDir, here.stateDir])
      await rm(join(parent, 'reserve'), { recursive: true });
    await here.fill();
    const receiver = await here.open();
    assert.equal(receiver.peers.list().length, 2);
  });

  test(`On a volume ${without}, a clean that a dashboard sends is completed`, async (t) => {
    const configDir = await smallVolume(t, { megabytes: 24, files: 3_000 });
    if (configDir === null) return;
    const home = await tempDir(t);
    const receiver = await createReceiver({
      ...{ configDir, esphome: standInEsphome, provisionVersions: false, minFreeDiskBytes: 0 },
    });
    t.after(() => receiver.close());
    const port = await receiver.listen(0, '127.0.0.1');
    const identity = await loadOffloaderIdentity(join(home, 'identity'));
    const offloader = createOffloader({ identity, connect: () => dial({ host: '127.0.0.1', port }) });
    receiver.pairing.open();
    await offloader.requestPairing({ pin: receiver.pin });
    const [request] = receiver.pairing.requests();
    assert.ok(request);
    await receiver.pairing.approve(request.dashboardId, request.pin);
    const session = await offloader.openSession({ pin: receiver.pin });
    await writeFile(join(home, 'kitchen.yaml'), 'esphome:\n  name: kitchen\nhost:\n');
    const { bytes } = await makeBundle({ configDir: home, file: 'kitchen.yaml' });
    const job = { file: 'kitchen.yaml', bundle: bytes };
    assert.equal((await session.build(job)).status, 'completed');
    await (filling === 'bytes' ? fillVolume(configDir) : fillFiles(configDir));
    const result = await session.build({ ...job, target: 'clean' });
    assert.deepEqual([result.status, result.errorMessage], ['completed', '']);
    await session.close();
  });

  test(`On a volume ${without}, a receiver starts, sweeps by itself, and says what it did`, async (t) => {
    const here = await place(t, filling);
    if (here === null) return;
    await (await here.open()).close();
    await writeFile(join(here.layout.trashDir, 'from an earlier crash'), Buffer.alloc(100_000));
    await here.fill();
    const log = recordingLog();
    const receiver = await here.open({ log, minFreeDiskBytes: 1_000_000 });
    await waitFor(() => log.entries.includes('info: sweep finished'), {
      what: 'the sweep',
      deadlineMs: 20_000,
    });
    assert.ok(log.entries.includes('warn: volume nearly full, sweeping at once'));
    assert.ok(log.entries.includes('info: device removed'), log.entries.join('\n'));
    assert.ok((await present(here)).length < 4);
    assert.equal(receiver.peers.list().length, 2);
    await rm(join(here.layout.buildsDir, '..', '..', 'filler'), { recursive: true });
    await receiver.retention.sweep();
    assert.equal((await readdir(join(here.layout.receiverDir, 'reserve'))).length, 8, 'for the next time');
  });
}
