/** The stores of job records: the shared suite for both, and what is particular to the one on disk. */
import assert from 'node:assert/strict';
import { mkdir, readFile, readdir, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { openDiskStore } from '../../src/jobs/disk-store.js';
import { createMemoryStore } from '../../src/jobs/store.js';
import { silentLog } from '../../src/log.js';
import { exampleRecord, jobStoreSuite } from '../../src/testing/index.js';
import { tempDir } from '../support/temp-dir.js';

jobStoreSuite('The store in memory', () => {
  const store = createMemoryStore();
  return Promise.resolve(() => Promise.resolve(store));
});

jobStoreSuite('The store on disk', async (t) => {
  const dir = join(await tempDir(t), 'jobs');
  return () => openDiskStore({ dir, log: silentLog });
});

test('A record is one file that only its owner reads, and no temporary file stays', async (t) => {
  const dir = await tempDir(t);
  const store = await openDiskStore({ dir, log: silentLog });
  const record = exampleRecord();
  await Promise.all([store.put(record), store.put(record)]);
  assert.deepEqual(await readdir(dir), [`${record.id}.json`]);
  assert.equal((await stat(join(dir, `${record.id}.json`))).mode & 0o777, 0o600);
});

test('A damaged record is set aside and kept, and the others still load', async (t) => {
  const dir = await tempDir(t);
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (_: unknown, text: string) => void warnings.push(text) };
  const store = await openDiskStore({ dir, log });
  const good = exampleRecord();
  await store.put(good);
  const damages = [
    '{"id":',
    '[]',
    'null',
    JSON.stringify({ ...good, state: 'finished' }),
    JSON.stringify({ ...good, dashboardId: '../../etc' }),
    JSON.stringify({ ...good, file: '../x.yaml' }),
    JSON.stringify({ ...good, progress: {} }),
    JSON.stringify({ ...good, id: '../x' }),
  ];
  const ids = damages.map(() => exampleRecord().id);
  for (const [index, text] of damages.entries()) await writeFile(join(dir, `${ids[index]}.json`), text);
  await writeFile(join(dir, 'a.log'), 'not a record');

  assert.deepEqual(await store.load(), [good]);
  assert.equal(warnings.length, damages.length);
  for (const [index, text] of damages.entries()) {
    assert.equal(await readFile(join(dir, `${ids[index]}.json.damaged`), 'utf8'), text);
  }
  assert.deepEqual(await store.load(), [good]);
});

test('A record in the file of another, or with another device, cannot be made to lead elsewhere', async (t) => {
  const dir = await tempDir(t);
  const store = await openDiskStore({ dir, log: silentLog });
  const record = exampleRecord();
  const changed = { ...record, device: '../../etc', configuration: '../../../etc/passwd' };
  await writeFile(join(dir, `${record.id}.json`), JSON.stringify(changed));
  assert.deepEqual(await store.load(), [record]);
  await writeFile(join(dir, `${exampleRecord().id}.json`), JSON.stringify(record));
  assert.deepEqual(await store.load(), [record]);
});

test('A record from before results were used again is one whose result is not', async (t) => {
  const dir = await tempDir(t);
  const store = await openDiskStore({ dir, log: silentLog });
  const record = exampleRecord();
  const { cached, resultKey, ...old } = record;
  await writeFile(join(dir, `${record.id}.json`), JSON.stringify(old));
  assert.deepEqual(await store.load(), [record]);
  assert.deepEqual([cached, resultKey], [false, null]);
});

test('A put that fails is told and does not hold up the next', async (t) => {
  const dir = await tempDir(t);
  const store = await openDiskStore({ dir, log: silentLog });
  const record = exampleRecord();
  const inTheWay = join(dir, `${record.id}.json`);
  await mkdir(inTheWay);
  await assert.rejects(store.put(record), { code: 'EISDIR' });
  const failing = store.put(record);
  const next = failing.catch(() => rmdir(inTheWay)).then(() => store.put({ ...record, attempt: 2 }));
  await assert.rejects(failing);
  await next;
  assert.deepEqual(await store.load(), [{ ...record, attempt: 2 }]);
});

test('An id that is no UUID is refused', async (t) => {
  const store = await openDiskStore({ dir: await tempDir(t), log: silentLog });
  for (const id of ['../x', '', 'a'.repeat(36)]) await assert.rejects(store.remove(id), TypeError);
});
