/** Who owns the data under an id: another key must never find it, whatever prevented its removal. */
import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createReserve } from '../../src/disk/reserve.js';
import { silentLog as log } from '../../src/log.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { createOwners, type Owners } from '../../src/retention/peer-data.js';
import { everyFailure } from '../support/failing-disk.js';
import { tempDir } from '../support/temp-dir.js';

const { spend } = createReserve([], log);

const id = dashboardId('a-dashboard');
const [pin, otherPin] = ['a'.repeat(64), 'b'.repeat(64)];

interface World {
  readonly ownersDir: string;
  readonly removed: DashboardId[];
  isGone: boolean;
  /** Opens the same directory again, as after a restart. */
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
        spend,
        log,
        async removeData(each) {
          here.removed.push(each);
          return here.isGone;
        },
      }),
  };
  return here;
}

test('Data stays for its own key, even after a restart, and is removed before another key gets the id', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  assert.deepEqual(here.removed, [id], 'the owner was unknown');
  await here.open().claim(id, pin);
  assert.deepEqual(here.removed, [id]);
  await here.open().claim(id, otherPin);
  assert.deepEqual(here.removed, [id, id]);
});

test('A key is refused while the data of another key cannot be removed', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  here.isGone = false;
  await assert.rejects(here.open().claim(id, otherPin), { code: 'PAIRING' });
  await here.open().claim(id, pin);
  here.isGone = true;
  await here.open().claim(id, otherPin);
});

test('An incomplete removal is completed before another key gets the id', async (t) => {
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

test('Ids that differ only in case share one owner, so neither finds the other’s data', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  here.removed.length = 0;
  const twin = dashboardId(id.toUpperCase());
  await here.open().claim(twin, pin);
  assert.deepEqual(here.removed, [twin, id]);
});

test('A peer approved before owner records existed keeps its data, unless another key owns it', async (t) => {
  const here = await world(t);
  await here.open().adopt(id, pin);
  assert.deepEqual(here.removed, []);
  await here.open().adopt(id, otherPin);
  assert.deepEqual(here.removed, [id]);
});

test('Whichever file system call fails, a claim is made or not, and can be repeated', async (t) => {
  const tried = await everyFailure(async () => {
    const here = await world(t);
    const owners = here.open();
    await owners.claim(id, pin);
    return {
      directory: here.ownersDir,
      act: () => owners.claim(id, otherPin),
      async check(outcome, at) {
        if ('error' in outcome) assert.equal((outcome.error as { code?: unknown }).code, 'STORAGE', at);
        assert.ok(here.removed.length > 1 || 'error' in outcome, at);
        await owners.claim(id, otherPin);
        here.removed.length = 0;
        assert.equal(await here.open().adopt(id, otherPin), true, at);
        assert.deepEqual(here.removed, [], at);
      },
    };
  });
  assert.ok(tried > 30, `${tried} failures`);
});

test('Data of another key that cannot be removed stays known as foreign until it is removed', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  const owners = here.open();
  here.isGone = false;
  assert.equal(await owners.adopt(id, otherPin), false);
  assert.equal(await owners.isForeign(id, otherPin), true);
  here.isGone = true;
  assert.equal(await owners.adopt(id, otherPin), true);
  assert.equal(await owners.isForeign(id, otherPin), false);
});

test('A damaged record has no owner, and its data is removed', async (t) => {
  const here = await world(t);
  await here.open().claim(id, pin);
  const [name = ''] = await readdir(here.ownersDir);
  await writeFile(join(here.ownersDir, name), '{"dashboardId":');
  here.removed.length = 0;
  await here.open().claim(id, pin);
  assert.deepEqual(here.removed, [id]);
});

test('A new peer waits for a running removal, which so cannot reach its builds', async (t) => {
  const here = await world(t);
  const done: string[] = [];
  let finish = (): void => {};
  const owners = createOwners({
    ...{ ownersDir: here.ownersDir, spend, log },
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
