/** The reserve on a real volume: a small tmpfs where the account can mount one. */
import assert from 'node:assert/strict';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { makeDirectory } from '../../src/disk/atomic-write.js';
import { createReserve, freeSpaceBytes } from '../../src/disk/reserve.js';
import { storageError } from '../../src/errors.js';
import { silentLog } from '../../src/log.js';
import { recordingLog } from '../support/recording-log.js';
import { fillFiles, fillVolume, smallVolume } from '../support/small-volume.js';
import { tempDir } from '../support/temp-dir.js';

const full = (): Error => Object.assign(new Error('ENOSPC'), { code: 'ENOSPC' });

test('The reserve is released piece by piece, until the work succeeds or nothing is left', async (t) => {
  const parent = await tempDir(t);
  const log = recordingLog();
  const reserve = createReserve([parent], log);
  await reserve.refill();
  const pieces = (await readdir(join(parent, 'reserve'))).length;
  let attempts = 0;
  const work = async (): Promise<string> => {
    attempts += 1;
    if (attempts < 3) throw storageError('the work failed', full());
    return 'done';
  };
  assert.equal(await reserve.spend(work), 'done');
  assert.equal((await readdir(join(parent, 'reserve'))).length, pieces - 2);
  assert.deepEqual(new Set(log.entries), new Set(['warn: volume full, reserve released']));
  attempts = -100;
  await assert.rejects(reserve.spend(work), { code: 'STORAGE' });
  assert.deepEqual(await readdir(join(parent, 'reserve')), []);
  await reserve.refill();
  assert.equal((await readdir(join(parent, 'reserve'))).length, pieces);
});

test('An error other than a full volume releases no reserve, and a missing reserve is not an error', async (t) => {
  const parent = await tempDir(t);
  const reserve = createReserve([parent, join(parent, 'missing')], silentLog);
  await reserve.refill();
  const error = Object.assign(new Error('EROFS'), { code: 'EROFS' });
  await assert.rejects(
    reserve.spend(() => Promise.reject(error)),
    error,
  );
  assert.equal((await readdir(join(parent, 'reserve'))).length, 8);
  await assert.rejects(
    createReserve([join(parent, 'none')], silentLog).spend(() => Promise.reject(full())),
    { code: 'ENOSPC' },
  );
});

test('On a volume without a free byte, one piece makes room for a directory with files', async (t) => {
  const parent = await smallVolume(t, { megabytes: 16 });
  if (parent === null) return;
  const reserve = createReserve([parent], silentLog);
  await reserve.refill();
  await fillVolume(parent);
  await assert.rejects(writeFile(join(parent, 'file'), 'text'), { code: 'ENOSPC' });
  await reserve.spend(async () => {
    await mkdir(join(parent, 'lock'), { recursive: true });
    for (const name of ['fence', 'owner', 'record']) await writeFile(join(parent, 'lock', name), 'text');
  });
  assert.equal((await readdir(join(parent, 'reserve'))).length, 7);
  await reserve.refill();
  assert.equal((await readdir(join(parent, 'reserve'))).length, 7, 'not while the volume is full');
});

test('On a volume that can hold no more files, one piece makes room for some, and the volume counts as full', async (t) => {
  const parent = await smallVolume(t, { megabytes: 16, files: 2_000 });
  if (parent === null) return;
  const reserve = createReserve([parent], silentLog);
  await reserve.refill();
  await fillFiles(parent);
  assert.equal(await freeSpaceBytes(parent), 0);
  await assert.rejects(mkdir(join(parent, 'lock')), { code: 'ENOSPC' });
  await reserve.spend(async () => {
    await makeDirectory(join(parent, 'lock'));
    for (const name of ['fence', 'owner', 'record']) await writeFile(join(parent, 'lock', name), 'text');
  });
  await rm(join(parent, 'filler'), { recursive: true });
  assert.ok((await freeSpaceBytes(parent)) > 0);
});
