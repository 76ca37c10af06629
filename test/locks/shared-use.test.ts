/** Users and removers of a shared resource: one of the two always sees the other. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { isUsed, showUse, whileUnused, type SharedOptions } from '../../src/locks/shared-use.js';
import { silentLog as log } from '../../src/log.js';
import { tempDir } from '../support/temp-dir.js';

type Place = SharedOptions & { readonly timing: NonNullable<SharedOptions['timing']> };

async function place(t: TestContext): Promise<Place> {
  return { locksDir: await tempDir(t), timing: { staleMs: 2_000, updateMs: 1_000 }, reason: 'a test', log };
}

const nothing = async (): Promise<void> => {};

test('A resource in use cannot be removed until its user leaves, and another can', async (t) => {
  const here = await place(t);
  assert.equal(await isUsed('idf', here), false);
  const user = await showUse(['idf', 'ccache'], here);
  assert.deepEqual([await isUsed('idf', here), await isUsed('platformio', here)], [true, false]);
  await assert.rejects(whileUnused('idf', { ...here, deadlineMs: 50 }, nothing), { code: 'LOCK_TIMEOUT' });
  await whileUnused('platformio', here, nothing);
  let done = false;
  const waiting = whileUnused('idf', here, async () => void (done = true));
  await sleep(150);
  assert.equal(done, false);
  await user.leave();
  await waiting;
  assert.equal(done, true);
});

test('A user that arrives during a removal is visible only afterwards, also at its second resource', async (t) => {
  const here = await place(t);
  const order: string[] = [];
  let coming: Promise<unknown> = Promise.resolve();
  await whileUnused('idf', here, async () => {
    coming = showUse(['ccache', 'idf'], here).then(() => order.push('used'));
    await sleep(200);
    order.push('taken away');
  });
  await coming;
  assert.deepEqual(order, ['taken away', 'used']);
});

test('A wait that ends early leaves no registration behind', async (t) => {
  const here = await place(t);
  await whileUnused('idf', here, async () => {
    const stop = new AbortController();
    const coming = showUse(['ccache', 'idf'], {
      ...here,
      signal: stop.signal,
      onBlocked: () => stop.abort(),
    });
    await assert.rejects(coming, { code: 'CANCELLED' });
  });
  assert.equal(await isUsed('ccache', here), false);
});

test('Many users and removers never overlap, and all of them finish', async (t) => {
  const here = await place(t);
  const present = new Map([
    ['a', 0],
    ['b', 0],
  ]);
  const change = (name: string, by: number): void => void present.set(name, (present.get(name) ?? 0) + by);
  const users = Array.from({ length: 8 }, async (_, index) => {
    for (let round = 0; round < 4; round += 1) {
      const user = await showUse(index % 2 === 0 ? ['a', 'b'] : ['b', 'a'], here);
      for (const name of present.keys()) change(name, 1);
      await sleep((index * 7 + round * 5) % 11);
      for (const name of present.keys()) change(name, -1);
      await user.leave();
    }
  });
  const takers = ['a', 'b', 'a'].map(async (name) => {
    for (let round = 0; round < 4; round += 1) {
      await whileUnused(name, here, async () => {
        for (let look = 0; look < 5; look += 1) {
          assert.equal(present.get(name), 0, name);
          await sleep(2);
        }
      });
    }
  });
  await Promise.all([...users, ...takers]);
});

test('A file in place of the locks directory throws STORAGE', async (t) => {
  const here = await place(t);
  const locksDir = join(here.locksDir, 'file');
  await writeFile(locksDir, '');
  await assert.rejects(showUse(['idf'], { ...here, locksDir }), { code: 'STORAGE' });
  await assert.rejects(whileUnused('idf', { ...here, locksDir }, nothing), { code: 'STORAGE' });
});
