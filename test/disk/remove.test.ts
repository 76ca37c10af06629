/** Trees that a build makes hard to remove. Covers src/disk/usage.ts. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { chmod, link, mkdir, readdir, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { type PublishGuard, moveToTrash, openTrash, removeTree } from '../../src/disk/remove.js';
import { measure } from '../../src/disk/usage.js';
import { failingDisk } from '../support/failing-disk.js';
import { tempDir } from '../support/temp-dir.js';

const isRoot = process.getuid?.() === 0;

/** Deeper than a path may be long, as a program can that goes down a step at a time. */
function digDeep(directory: string, levels: number): void {
  const name = 'd'.repeat(200);
  const home = process.cwd();
  try {
    process.chdir(directory);
    for (let level = 0; level < levels; level += 1) {
      mkdirSync(name);
      process.chdir(name);
    }
    writeFileSync('bottom', 'deep');
  } finally {
    process.chdir(home);
  }
}

test('A tree deeper than the longest path is removed', async (t) => {
  const base = await tempDir(t);
  const tree = join(base, 'tree');
  await mkdir(tree);
  digDeep(tree, 100);
  await removeTree(tree);
  assert.deepEqual(await readdir(base), []);
});

test('A link is removed itself, and its target stays unchanged', async (t) => {
  const base = await tempDir(t);
  await mkdir(join(base, 'elsewhere'));
  await writeFile(join(base, 'elsewhere', 'canary'), 'alive');
  await mkdir(join(base, 'tree'));
  await symlink(join(base, 'elsewhere'), join(base, 'tree', 'link'));
  await removeTree(join(base, 'tree'));
  assert.ok(existsSync(join(base, 'elsewhere', 'canary')));
  await symlink(join(base, 'elsewhere'), join(base, 'link'));
  await removeTree(join(base, 'link'));
  assert.deepEqual(await readdir(base), ['elsewhere']);
  assert.ok(existsSync(join(base, 'elsewhere', 'canary')));
});

test(
  'A directory without permissions is moved away, measured and removed',
  { skip: isRoot && 'permissions do not hold for root' },
  async (t) => {
    const base = await tempDir(t);
    const shut = join(base, 'tree', 'shut');
    await mkdir(shut, { recursive: true });
    await writeFile(join(shut, 'file'), Buffer.alloc(10_000));
    await chmod(shut, 0);
    assert.ok((await measure(join(base, 'tree'), { unlock: true })).diskBytes >= 10_000);
    await chmod(shut, 0);
    const trashed = await moveToTrash(shut, join(base, 'trash'));
    assert.ok(trashed !== null);
    await removeTree(trashed);
    assert.deepEqual(await readdir(join(base, 'trash')), []);
  },
);

test('A sparse file counts for the space it occupies', async (t) => {
  const base = await tempDir(t);
  await writeFile(join(base, 'holes'), '');
  await truncate(join(base, 'holes'), 100_000_000);
  const { bytes, diskBytes } = await measure(base);
  assert.equal(bytes, 100_000_000);
  assert.ok(diskBytes < 1_000_000, String(diskBytes));
});

test('A file with many hard links counts once, so that it cannot appear to fill a disk', async (t) => {
  const base = await tempDir(t);
  const tree = join(base, 'tree');
  await mkdir(tree);
  await writeFile(join(tree, 'file'), Buffer.alloc(1_000_000, 1));
  const { diskBytes: before } = await measure(tree);
  for (let n = 0; n < 50; n += 1) await link(join(tree, 'file'), join(tree, `name-${n}`));
  const { diskBytes, files } = await measure(tree);
  assert.equal(files, 51);
  assert.ok(diskBytes - before < 100_000, `${before} and then ${diskBytes}`);
});

test('A walk stops when it is aborted, also within one directory', async (t) => {
  const base = await tempDir(t);
  for (let n = 0; n < 200; n += 1) writeFileSync(join(base, `file-${n}`), '');
  const ending = new AbortController();
  const walk = measure(base, { signal: ending.signal });
  setImmediate(() => ending.abort());
  await assert.rejects(walk, { name: 'AbortError' });
});

/** What was moved before the lease was lost, and nothing after. */
function lostAfter(moves: number): PublishGuard {
  let left = moves;
  return {
    publish(act) {
      left -= 1;
      return left < 0 ? Promise.reject(new Error('lost')) : act();
    },
  };
}

test('What is moved to the trash is out of sight at once, and deleted when the trash is emptied', async (t) => {
  const base = await tempDir(t);
  const trashDir = join(base, 'trash');
  for (const name of ['build/x', 'cache']) await mkdir(join(base, name), { recursive: true });
  const trash = openTrash(trashDir);
  const fence = lostAfter(Infinity);
  assert.deepEqual(
    [await trash.move(join(base, 'build'), fence), await trash.move(join(base, 'gone'), fence)],
    [true, false],
  );
  assert.deepEqual((await readdir(base)).toSorted(), ['cache', 'trash']);
  assert.equal((await readdir(trashDir)).length, 1);
  await trash.empty();
  await trash.empty();
  assert.deepEqual(await readdir(trashDir), []);
});

test('Nothing is moved once the lease is lost, and what was moved before is deleted', async (t) => {
  const base = await tempDir(t);
  const trashDir = join(base, 'trash');
  for (const name of ['one', 'two']) await mkdir(join(base, name));
  const trash = openTrash(trashDir);
  const fence = lostAfter(1);
  await trash.move(join(base, 'one'), fence);
  await assert.rejects(trash.move(join(base, 'two'), fence), /lost/);
  await trash.empty();
  assert.deepEqual((await readdir(base)).toSorted(), ['trash', 'two']);
  assert.deepEqual(await readdir(trashDir), []);
});

test('Emptying the trash ends with its signal, and leaves the rest for the next start', async (t) => {
  const base = await tempDir(t);
  const trashDir = join(base, 'trash');
  await mkdir(join(base, 'build/x'), { recursive: true });
  const trash = openTrash(trashDir);
  await trash.move(join(base, 'build'), lostAfter(1));
  await trash.empty(AbortSignal.abort());
  assert.equal((await readdir(trashDir)).length, 1);
});

test('Trash that could not be deleted is deleted by the next removal of any owner', async (t) => {
  const base = await tempDir(t);
  const trashDir = join(base, 'trash');
  const guard: PublishGuard = { publish: (act) => act() };
  const disk = failingDisk(base);
  t.after(() => disk[Symbol.dispose]());
  const trash = openTrash(trashDir);
  for (const name of ['attic', 'hall']) {
    await mkdir(join(base, name));
    await writeFile(join(base, name, 'file'), 'text');
    await trash.move(join(base, name), guard);
  }
  disk.failAt(1, 'EROFS', true);
  await assert.rejects(trash.empty(), { code: 'EROFS' });
  disk.heal();
  assert.equal((await readdir(trashDir)).length, 2);
  await openTrash(join(base, 'another trash')).empty();
  assert.deepEqual(await readdir(trashDir), []);
});

test('A tree that was moved under a lost lease is deleted as well', async (t) => {
  const base = await tempDir(t);
  const trash = openTrash(join(base, 'trash'));
  await mkdir(join(base, 'attic'));
  const late: PublishGuard = {
    async publish(act) {
      await act();
      throw new Error('the lease was lost meanwhile');
    },
  };
  await assert.rejects(trash.move(join(base, 'attic'), late), /lost meanwhile/);
  await trash.empty();
  assert.deepEqual(await readdir(join(base, 'trash')), []);
});
