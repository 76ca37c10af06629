import assert from 'node:assert/strict';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import fc from 'fast-check';

import { isReceiverError } from '../../src/errors.js';
import { openFence } from '../../src/locks/fence.js';
import { freshDir } from './helpers.js';

const isFenced = (error: unknown): boolean => isReceiverError(error, 'FENCED');

test('Numbers rise, are never given twice, and few of them are kept', async (t) => {
  const directory = await freshDir(t);
  const fences = [openFence(directory), openFence(directory), openFence(directory)];
  assert.equal(fences[0]!.newest(), 0);
  const taken: number[] = [];
  for (let round = 0; round < 20; round += 1) {
    taken.push(...fences.map((fence) => fence.next()));
  }
  assert.equal(new Set(taken).size, 60);
  assert.equal(fences[0]!.newest(), Math.max(...taken));
  assert.ok((await readdir(directory)).length <= 8);
});

test('Foreign files among the numbers are ignored', async (t) => {
  const directory = await freshDir(t);
  for (const name of [
    'fence-',
    'fence--5',
    'fence-1e9',
    'fence-9999999999999999999',
    'xfence-7',
    'owner-9.json',
  ])
    await writeFile(join(directory, name), '');
  await mkdir(join(directory, 'lock'));
  assert.equal(openFence(directory).next(), 1);
});

test('An old owner is refused before it acts, and told when a newer one came while it acted', async (t) => {
  const fence = openFence(await freshDir(t));
  const first = fence.next();
  assert.equal(await fence.publish(first, async () => 'done'), 'done');
  await assert.rejects(
    fence.publish(first, async () => void fence.next()),
    isFenced,
  );
  await assert.rejects(
    fence.publish(first, () => assert.fail('it must not act')),
    isFenced,
  );
});

test('A fence whose directory was emptied lets nobody publish', async (t) => {
  const directory = await freshDir(t);
  const fence = openFence(directory);
  const number = fence.next();
  await rm(join(directory, `fence-${number}`));
  await assert.rejects(
    fence.publish(number, async () => {}),
    isFenced,
  );
});

/**
 * Two owners in all orders of their steps. An old owner writes something down and publishes; the new one takes
 * its number and looks. Either the new one finds what was written, or the old one is told that it is old.
 */
test('Whatever the order of their steps, an old owner and its successor never miss each other', async (t) => {
  const root = await freshDir(t);
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), async (scheduler) => {
      const directory = join(root, String((run += 1)));
      await mkdir(directory);
      const fence = openFence(directory);
      const step = <T>(name: string, act: () => Promise<T>): Promise<T> =>
        scheduler.schedule(Promise.resolve(), name).then(act);
      const old = fence.next();
      let found = false;
      const outcome = step('old: publish', () =>
        fence.publish(old, async () => {
          await step('old: write', () => writeFile(join(directory, 'note'), ''));
          await step('old: pause', async () => {});
        }),
      ).then(
        () => 'published',
        (error: unknown) => (isFenced(error) ? 'fenced' : Promise.reject(error as Error)),
      );
      const successor = step('new: number', async () => fence.next()).then(() =>
        step('new: look', async () => {
          found = (await readdir(directory)).includes('note');
        }),
      );
      await scheduler.waitFor(Promise.all([outcome, successor]));
      assert.ok((await outcome) === 'fenced' || found);
    }),
    { numRuns: 60 },
  );
});

test('A planted number beyond all others is an error, not an endless search', async (t) => {
  const directory = await freshDir(t);
  await writeFile(join(directory, 'fence-999999999999999'), '');
  assert.throws(() => openFence(directory).next(), { code: 'STORAGE' });
});

test('After the directory was removed, numbering continues above all numbers taken in it', async (t) => {
  const parent = await freshDir(t);
  const [one, two] = [join(parent, 'one'), join(parent, 'two')];
  const fence = openFence(one);
  let newest = 0;
  for (let round = 0; round < 3; round += 1) {
    for (const directory of [one, two]) await mkdir(directory);
    const other = openFence(two);
    other.next();
    const number = fence.next();
    assert.ok(number > newest);
    newest = fence.next();
    for (const each of [fence, other]) each.retire();
    for (const directory of [one, two]) await rm(directory, { recursive: true });
    await assert.rejects(
      fence.publish(newest, async () => {}),
      isFenced,
    );
  }
  assert.equal((await readdir(parent)).length, 1);
});
