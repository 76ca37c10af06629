/** Devices that begin from nothing, on real trees, with a canary beside each and behind each planted link. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { silentLog as log } from '../../src/log.js';
import { createPaths, dashboardId, deviceFromFile, fileName, type Layout } from '../../src/paths/index.js';
import { resetDevices, type ResetOptions } from '../../src/retention/reset.js';
import { tempDir } from '../support/temp-dir.js';

const mine = dashboardId('dashboard-of-mine');
const other = dashboardId('dashboard-of-others');
const files = [
  'config/kitchen.yaml',
  '.config.from',
  'storage/kitchen.yaml.json',
  'build/k/program',
  'idedata/k.json',
];

interface Place extends ResetOptions {
  readonly layout: Layout;
  readonly base: string;
  readonly leased: string[];
  list(peer: string, device: string): Promise<string[]>;
}

async function place(t: TestContext): Promise<Place> {
  const base = await tempDir(t);
  const { layout } = createPaths({ configDir: join(base, 'config') });
  const leased: string[] = [];
  for (const peer of [mine, other]) {
    for (const device of ['kitchen', 'hall']) {
      const subtree = layout.subtree({
        dashboardId: peer,
        device: deviceFromFile(fileName(`${device}.yaml`)),
      });
      for (const name of [...files, '.unfinished', 'out/of/the/way']) {
        await mkdir(join(subtree, name, '..'), { recursive: true });
        await writeFile(join(subtree, name), name);
      }
    }
  }
  await mkdir(layout.trashDir, { recursive: true });
  return {
    ...{ layout, base, leased, log },
    async underLease(key, _reason, work) {
      leased.push(`${key.dashboardId}/${key.device}`);
      return work();
    },
    list: async (peer, device) => (await readdir(join(layout.buildsDir, peer, device))).toSorted(),
  };
}

const rest = ['.config.from', 'config', 'storage'];

test("What was built for the peer goes, each device under its lease; configurations and the others' builds stay", async (t) => {
  const here = await place(t);
  await resetDevices([mine], here);
  assert.deepEqual(here.leased.toSorted(), [`${mine}/hall`, `${mine}/kitchen`]);
  for (const device of ['kitchen', 'hall']) {
    assert.deepEqual(await here.list(mine, device), rest);
    assert.ok((await here.list(other, device)).includes('build'));
  }
  assert.deepEqual(await readdir(here.layout.trashDir), []);
  await resetDevices([mine, dashboardId('nobody-at-all')], here);
});

test("A link is not followed, a file in a device's place is left, and what fails does not keep the rest from it", async (t) => {
  const here = await place(t);
  const outside = join(here.base, 'outside');
  await mkdir(join(outside, 'build'), { recursive: true });
  await writeFile(join(outside, 'build', 'canary'), 'alive');
  const peerDir = join(here.layout.buildsDir, mine);
  await symlink(outside, join(peerDir, 'attic'));
  await writeFile(join(peerDir, 'cellar'), 'a file');
  await symlink(outside, join(peerDir, 'kitchen', 'linked'));
  await assert.rejects(resetDevices([mine], here), { code: 'STORAGE' });
  assert.equal(await readFile(join(outside, 'build', 'canary'), 'utf8'), 'alive');
  assert.equal(await readFile(join(peerDir, 'cellar'), 'utf8'), 'a file');
  for (const device of ['kitchen', 'hall']) assert.deepEqual(await here.list(mine, device), rest);
});

test('A device whose lease is not to be had is left as it is', async (t) => {
  const here = await place(t);
  const refused = { ...here, underLease: () => Promise.reject(new Error('busy')) };
  await assert.rejects(resetDevices([mine], refused), { code: 'STORAGE' });
  assert.ok((await here.list(mine, 'kitchen')).includes('build'));
});
