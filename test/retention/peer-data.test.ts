/** Whose data is under an id: another key must never find it, whatever came in the way of its removal. */
import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { silentLog as log } from '../../src/log.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { createOwners, type Owners } from '../../src/retention/peer-data.js';
import { tempDir } from '../support/temp-dir.js';

const id = dashboardId('a-dashboard');
const [pin, otherPin] = ['a'.repeat(64), 'b'.repeat(64)];

interface World {
  readonly ownersDir: string;
  readonly removed: DashboardId[];
  isGone: boolean;
  /** A fresh one on the same directory, as after a restart. */
  open(): Owners;
}

async function world(t: TestContext): Promise<World> {
  const ownersDir = join(await tempDir(t), 'owners');
  await mkdir(ownersDir);
  const here: World = {
    ownersDir,
    removed: [],
    isGone: true,
    open: () =>
      createOwners({
        ownersDir,
        log,
        async removeData(each) {
          here.removed.push(each);
          return here.isGone;
        },
      }),
  };
  return here;
}

test('Data that was kept stays for its own key, also after a restart, and is removed before another key gets the id', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  assert.deepEqual(here.removed, [id], 'nobody knew whose it was');
  await here.open().claim(id, pin);
  assert.deepEqual(here.removed, [id]);
  await here.open().claim(id, otherPin);
  assert.deepEqual(here.removed, [id, id]);
});

test('A key is refused as long as what another one has left cannot be removed', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  here.isGone = false;
  await assert.rejects(here.open().claim(id, otherPin), { code: 'PAIRING' });
  await here.open().claim(id, pin);
  here.isGone = true;
  await here.open().claim(id, otherPin);
});

test('A removal that left something behind is made good before another key gets the id', async (t) => {
  const here = await world(t);
  const owners = here.open();
  await owners.claim(id, pin);
  here.isGone = false;
  assert.equal(await owners.remove(id), false);
  here.isGone = true;
  here.removed.length = 0;
  await here.open().claim(id, otherPin);
  assert.deepEqual(here.removed, [id]);
});

test('Ids that some file systems do not tell apart are one, so neither finds what the other has left', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  here.removed.length = 0;
  const twin = dashboardId(id.toUpperCase());
  await here.open().claim(twin, pin);
  assert.deepEqual(here.removed, [twin, id]);
});

test('A peer that was approved before there were records keeps its data; one whose id is on record for another key does not', async (t) => {
  const here = await world(t);
  await here.open().adopt(id, pin);
  assert.deepEqual(here.removed, []);
  await here.open().adopt(id, otherPin);
  assert.deepEqual(here.removed, [id]);
});

test('A record that is damaged is nobody’s, and its data goes', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  const [name = ''] = await readdir(here.ownersDir);
  await writeFile(join(here.ownersDir, name), '{"dashboardId":');
  here.removed.length = 0;
  await here.open().claim(id, pin);
  assert.deepEqual(here.removed, [id]);
});

test('A newcomer waits for the removal that is under way, so that it cannot reach what he builds', async (t) => {
  const here = await world(t);
  const done: string[] = [];
  let finish = (): void => {};
  const owners = createOwners({
    ...{ ownersDir: here.ownersDir, log },
    async removeData() {
      done.push('removal begins');
      await new Promise<void>((resolve) => (finish = resolve));
      done.push('removal ends');
      return true;
    },
  });
  await owners.adopt(id, pin);
  const removing = owners.remove(id);
  const claiming = owners.claim(id, pin).then(() => done.push('claimed'));
  while (done.length === 0) await new Promise(setImmediate);
  finish();
  await removing;
  while (done.length === 2) await new Promise(setImmediate);
  finish();
  await claiming;
  assert.deepEqual(done, ['removal begins', 'removal ends', 'removal begins', 'removal ends', 'claimed']);
});
