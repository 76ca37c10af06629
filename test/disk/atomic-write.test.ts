import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';

import { createAtomic, makeDirectory, writeAtomic } from '../../src/disk/atomic-write.js';
import { moveToTrash, removeTree } from '../../src/disk/remove.js';
import { measure } from '../../src/disk/usage.js';
import { fillFiles, smallVolume } from '../support/small-volume.js';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'disk-'));
});
afterEach(() => rm(dir, { recursive: true }));

test('a file is replaced as a whole, with the mode that was asked for', async () => {
  const file = join(dir, 'peers.json');
  await writeFile(file, 'old', { mode: 0o644 });
  await writeAtomic(file, 'new', { mode: 0o600 });
  assert.equal(await readFile(file, 'utf8'), 'new');
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(dir), ['peers.json']);
});

test('a write that fails leaves the old file and no temporary one', async () => {
  const target = join(dir, 'target');
  await mkdir(join(target, 'full'), { recursive: true });
  await assert.rejects(writeAtomic(target, 'new'));
  assert.deepEqual(await readdir(dir), ['target']);
});

test('of many creations of one file one succeeds, and a file that is there stays', async () => {
  const file = join(dir, 'key');
  const made = await Promise.all([1, 2, 3, 4].map((n) => createAtomic(file, `${n}`)));
  assert.equal(made.filter(Boolean).length, 1);
  assert.equal(await readFile(file, 'utf8'), `${made.indexOf(true) + 1}`);
  assert.equal(await createAtomic(file, 'late'), false);
  assert.deepEqual([(await stat(file)).mode & 0o777, await readdir(dir)], [0o600, ['key']]);
});

test('removing a link spares what it names', async () => {
  await mkdir(join(dir, 'kept'));
  await writeFile(join(dir, 'kept', 'file'), 'x');
  await mkdir(join(dir, 'tree'));
  await symlink(join(dir, 'kept'), join(dir, 'tree', 'link'));
  await removeTree(join(dir, 'tree'));
  await removeTree(join(dir, 'never-there'));
  assert.deepEqual(await readdir(dir), ['kept']);
  assert.equal(await readFile(join(dir, 'kept', 'file'), 'utf8'), 'x');
});

test('what goes to the trash is gone under its old name at once, and nothing is nothing', async () => {
  await mkdir(join(dir, 'build'));
  const trashed = await moveToTrash(join(dir, 'build'), join(dir, 'trash'));
  assert.ok(trashed !== null && (await stat(trashed)).isDirectory());
  assert.equal(await moveToTrash(join(dir, 'build'), join(dir, 'trash')), null);
});

test('usage counts files and follows no link', async () => {
  await mkdir(join(dir, 'a', 'b'), { recursive: true });
  await writeFile(join(dir, 'a', 'one'), 'x'.repeat(1000));
  await writeFile(join(dir, 'a', 'b', 'two'), 'y'.repeat(500));
  await writeFile(join(dir, 'outside'), 'z'.repeat(99_999));
  await symlink(join(dir, 'outside'), join(dir, 'a', 'link'));
  const usage = await measure(join(dir, 'a'));
  assert.equal(usage.files, 3);
  assert.ok(usage.bytes >= 1500 && usage.bytes < 2000);
  assert.deepEqual(await measure(join(dir, 'missing')), { bytes: 0, files: 0, diskBytes: 0 });
});

test('A directory that does not fit on a full volume fails with that reason, never as missing', async (t) => {
  const volume = await smallVolume(t, { megabytes: 4, files: 200 });
  if (volume === null) return;
  await makeDirectory(join(volume, 'a', 'b'));
  await fillFiles(volume);
  for (const path of [['new'], ['a', 'b', 'new'], ['new', 'below', 'new']]) {
    await assert.rejects(makeDirectory(join(volume, ...path)), { code: 'ENOSPC' });
  }
  await makeDirectory(join(volume, 'a', 'b'));
});
