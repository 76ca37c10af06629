/** Users and removers of a shared resource: one of the two always sees the other. */
import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { isUsed, showUse, useAlone, whileUnused, type SharedOptions } from '../../src/locks/shared-use.js';
import { silentLog as log } from '../../src/log.js';
import { makerOf } from '../../src/disk/names.js';
import { everyFailure } from '../support/failing-disk.js';
import { waitFor } from '../support/wait-for.js';
import { tempDir } from '../support/temp-dir.js';

type Place = SharedOptions & { readonly timing: NonNullable<SharedOptions['timing']> };

async function place(t: TestContext): Promise<Place> {
  return { locksDir: await tempDir(t), timing: { staleMs: 2_000, updateMs: 1_000 }, reason: 'a test', log };
}

/** What a crash or a failed write can leave counts only if a start recognizes and removes it. */
async function leftIn({ locksDir }: Place): Promise<string[]> {
  const names = await readdir(locksDir, { recursive: true });
  return names.filter((name) => name.includes('user-') && makerOf(name) === null);
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

test('A sole user waits for the others, keeps them out, and counts as a user itself', async (t) => {
  const here = await place(t);
  const user = await showUse(['a'], here);
  const events: string[] = [];
  const waiting = useAlone(['a', 'b'], { ...here, onBlocked: () => events.push('blocked') });
  await assert.rejects(useAlone(['a'], { ...here, deadlineMs: 50 }), { code: 'LOCK_TIMEOUT' });
  const elsewhere = await useAlone(['c'], here);
  await user.leave();
  const sole = await waiting;
  assert.deepEqual([await isUsed('a', here), await isUsed('b', here)], [true, true]);
  const next = showUse(['b'], here).then((entered) => {
    events.push('entered');
    return entered;
  });
  await assert.rejects(whileUnused('a', { ...here, deadlineMs: 50 }, nothing), { code: 'LOCK_TIMEOUT' });
  assert.equal(await sole.publish(async () => 'published'), 'published');
  events.push('leaves');
  await sole.leave();
  await (await next).leave();
  await elsewhere.leave();
  assert.deepEqual(events.slice(-2), ['leaves', 'entered']);
  assert.deepEqual([await isUsed('a', here), await isUsed('b', here)], [false, false]);
});

test('Callers that want sole use of several resources, in any order, never deadlock', async (t) => {
  const here = await place(t);
  const holding = new Map<string, number>();
  const wanted = [
    ['a', 'b', 'c'],
    ['c', 'b', 'a'],
    ['b', 'b', 'a'],
    ['c', 'a'],
  ];
  await Promise.all(
    wanted.map(async (names) => {
      const sole = await useAlone(names, here);
      for (const name of new Set(names)) {
        assert.equal(holding.get(name) ?? 0, 0, name);
        holding.set(name, 1);
      }
      await sleep(5);
      for (const name of names) holding.set(name, 0);
      await sole.leave();
    }),
  );
});

test('A wait for sole use that ends early releases what it held', async (t) => {
  const here = await place(t);
  const holder = await useAlone(['b'], here);
  const stop = new AbortController();
  const coming = useAlone(['a', 'b'], { ...here, signal: stop.signal, onBlocked: () => stop.abort() });
  await assert.rejects(coming, { code: 'CANCELLED' });
  await (await useAlone(['a'], here)).leave();
  await holder.leave();
});

test('A build is recorded for each resource that it uses alone until it has ended', async (t) => {
  const here = await place(t);
  const sole = await useAlone(['a', 'b'], here);
  const recorded = async (): Promise<number> => {
    const names = await readdir(here.locksDir, { recursive: true, withFileTypes: true });
    const files = names.filter((name) => name.isFile());
    const texts = files.map(({ parentPath, name }) => readFile(join(parentPath, name), 'utf8'));
    return (await Promise.all(texts)).filter((text) => text.includes('987654321')).length;
  };
  await sole.recordBuild({ pid: 987_654_321, startTime: 1, bootId: '' } as never);
  assert.equal(await recorded(), 2);
  await sole.recordBuild(null);
  assert.equal(await recorded(), 0);
  await sole.leave();
});

test('A file in place of the locks directory throws STORAGE', async (t) => {
  const here = await place(t);
  const locksDir = join(here.locksDir, 'file');
  await writeFile(locksDir, '');
  await assert.rejects(showUse(['idf'], { ...here, locksDir }), { code: 'STORAGE' });
  await assert.rejects(whileUnused('idf', { ...here, locksDir }, nothing), { code: 'STORAGE' });
});

test('Whichever file system call fails, a user that has left or was not let in leaves nothing in the lock', async (t) => {
  const build = { pid: 2 ** 22 + 1, startTime: 1, bootId: '', marker: '' };
  const tried = await everyFailure(async () => {
    const here = await place(t);
    return {
      directory: here.locksDir,
      async act() {
        const user = await showUse(['idf'], here);
        try {
          await user.recordBuild(build);
        } finally {
          await user.leave();
        }
      },
      async check(_, at) {
        await waitFor(async () => (await leftIn(here)).length === 0, { what: `nothing left: ${at}` });
      },
    };
  });
  assert.ok(tried > 5, `${tried} failures`);
});
