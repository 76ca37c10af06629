/** Records on disk, and everything else that can be in their place. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import * as z from 'zod';

import { nullUnlessRecord, readJsonFile, readJsonFileSync, writeJsonFile } from '../../src/disk/json-file.js';
import { tempDir } from '../support/temp-dir.js';

const schema = z.object({ name: z.string() });
const format = { maxBytes: 64, parse: schema.parse };

test('A record is read as it was written, and nobody else can read it', async (t) => {
  const directory = await tempDir(t);
  const file = join(directory, 'record.json');
  for (const name of ['first', 'Küche "1"\u2028']) {
    await writeJsonFile(file, { name });
    assert.deepEqual(await readJsonFile(file, format), { name });
    assert.deepEqual(readJsonFileSync(file, format), { name });
  }
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(directory), ['record.json']);
});

for (const [what, plant] of [
  ['an empty file, as a power cut leaves it', (file: string) => writeFile(file, '')],
  ['half a record', (file: string) => writeFile(file, '{"name":"ki')],
  ['another value', (file: string) => writeFile(file, '{"name":1}')],
  ['bytes that are no text', (file: string) => writeFile(file, Buffer.from('{"name":"\xff"}', 'latin1'))],
  ['a file that is too large', (file: string) => writeFile(file, JSON.stringify({ name: 'x'.repeat(64) }))],
  ['a directory', (file: string) => mkdir(file)],
  ['a FIFO', async (file: string) => void execFileSync('mkfifo', [file])],
] as const) {
  test(`In the place of a record, ${what} is rejected, and left unchanged`, async (t) => {
    const directory = await tempDir(t);
    const file = join(directory, 'record.json');
    await plant(file);
    await assert.rejects(readJsonFile(file, format), { code: 'STORAGE' });
    assert.throws(() => readJsonFileSync(file, format), { code: 'STORAGE' });
    assert.equal(await readJsonFile(file, format).catch(nullUnlessRecord), null);
    assert.deepEqual(await readdir(directory), ['record.json']);
  });
}

test('A missing record is distinguished from an inaccessible one', async (t) => {
  const directory = await tempDir(t);
  const file = join(directory, 'record.json');
  await assert.rejects(readJsonFile(file, format), { code: 'ENOENT' });
  assert.equal(await readJsonFile(file, format).catch(nullUnlessRecord), null);
  await writeFile(join(directory, 'elsewhere'), '{"name":"planted"}');
  await symlink('elsewhere', file);
  await assert.rejects(readJsonFile(file, format).catch(nullUnlessRecord), { code: 'ELOOP' });
});

test('A write that fails leaves the record as it was', async (t) => {
  const directory = await tempDir(t);
  const file = join(directory, 'record.json');
  await writeJsonFile(file, { name: 'old' });
  const circle: { self?: object } = {};
  circle.self = circle;
  await assert.rejects(writeJsonFile(file, circle), TypeError);
  assert.equal(await readFile(file, 'utf8'), '{"name":"old"}');
  assert.deepEqual(await readdir(directory), ['record.json']);
});
