/**
 * The stores of job records: the shared suite for both, and what is particular to the one on disk. Covers
 * src/disk/names.ts, src/jobs/disk-store.ts, src/jobs/record.ts, src/testing/job-store-suite.ts.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, readFile, readdir, rename, rmdir, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { makerName, ownMaker, temporaryName } from '../../src/disk/names.js';
import { openDiskStore } from '../../src/jobs/disk-store.js';
import type { JobStore } from '../../src/jobs/store.js';
import { createMemoryStore, type MemoryPlace } from './memory-store.js';
import { silentLog, type Log } from '../../src/log.js';
import { identify, type ProcessIdentity } from '../../src/process/identity.js';
import { exampleRecord, jobStoreSuite } from '../../src/testing/index.js';
import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';

const open = (dir: string, log: Log = silentLog): Promise<JobStore> =>
  openDiskStore({ dir, presenceDir: join(dir, 'receivers'), watchMs: 50, log });

jobStoreSuite('The store in memory', () => {
  const place: MemoryPlace = { records: new Map(), owners: new Map() };
  return Promise.resolve(() => Promise.resolve(createMemoryStore(place)));
});

jobStoreSuite('The store on disk', async (t) => {
  const dir = join(await tempDir(t), 'jobs');
  return () => open(dir);
});

test('A record is one file that only its owner reads, and no temporary file stays', async (t) => {
  const dir = await tempDir(t);
  const store = await open(dir);
  const record = exampleRecord();
  await Promise.all([store.put(record), store.put(record)]);
  const name = `${record.id}.${ownMaker()}.json`;
  assert.deepEqual((await readdir(dir)).toSorted(), [name, 'receivers'].toSorted());
  assert.equal((await stat(join(dir, name))).mode & 0o777, 0o600);
});

test('A damaged record is set aside and kept, and the others still load', async (t) => {
  const dir = await tempDir(t);
  const warnings: string[] = [];
  const log = { ...silentLog, warn: (_: unknown, text: string) => void warnings.push(text) };
  const store = await open(dir, log);
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

test('A FIFO or a link among the records is set aside and never waited for', async (t) => {
  const dir = await tempDir(t);
  const good = exampleRecord();
  const [fifo, linked] = [exampleRecord().id, exampleRecord().id];
  await writeFile(join(dir, 'elsewhere'), JSON.stringify({ ...good, id: linked }));
  await symlink(join(dir, 'elsewhere'), join(dir, `${linked}.json`));
  execFileSync('mkfifo', [join(dir, `${fifo}.json`)]);
  const store = await open(dir);
  await store.put(good);
  assert.deepEqual(await store.load(), [good]);
  const names = await readdir(dir);
  for (const id of [fifo, linked]) assert.ok(names.includes(`${id}.json.damaged`), names.join(' '));
});

test('A record in the file of another, or with another device, cannot be made to lead elsewhere', async (t) => {
  const dir = await tempDir(t);
  const store = await open(dir);
  const record = exampleRecord();
  const changed = { ...record, device: '../../etc', configuration: '../../../etc/passwd' };
  await writeFile(join(dir, `${record.id}.json`), JSON.stringify(changed));
  assert.deepEqual(await store.load(), [record]);
  await writeFile(join(dir, `${exampleRecord().id}.json`), JSON.stringify(record));
  assert.deepEqual(await store.load(), [record]);
});

test('A record from before results were reused and bundles kept has neither', async (t) => {
  const dir = await tempDir(t);
  const store = await open(dir);
  const record = exampleRecord();
  const { cached, resultKey, bundle, requeued, ...old } = record;
  await writeFile(join(dir, `${record.id}.json`), JSON.stringify(old));
  assert.deepEqual(await store.load(), [record]);
  assert.deepEqual([cached, resultKey, bundle, requeued], [false, null, null, false]);
});

test('A failed put rejects and does not delay the next', async (t) => {
  const dir = await tempDir(t);
  const store = await open(dir);
  const record = exampleRecord();
  const inTheWay = join(dir, `${record.id}.${ownMaker()}.json`);
  await mkdir(inTheWay);
  await assert.rejects(store.put(record), { code: 'EISDIR' });
  const failing = store.put(record);
  const next = failing.catch(() => rmdir(inTheWay)).then(() => store.put({ ...record, attempt: 2 }));
  await assert.rejects(failing);
  await next;
  assert.deepEqual(await store.load(), [{ ...record, attempt: 2 }]);
});

test('An id that is no UUID is refused', async (t) => {
  const store = await open(await tempDir(t));
  for (const id of ['../x', '', 'a'.repeat(36)]) await assert.rejects(store.remove(id), TypeError);
});

test('Of many that open the store after its owner has died, one gets each of its live jobs, and a record is never lost', async (t) => {
  const dir = await tempDir(t);
  const me = identify(process.pid) as ProcessIdentity;
  const dead = makerName({ ...me, startTime: me.startTime - 1 });
  const records = Array.from({ length: 20 }, (_, createdAt) => exampleRecord({ createdAt, state: 'queued' }));
  for (const record of records) {
    await writeFile(join(dir, `${record.id}.${dead}.json`), JSON.stringify(record));
  }
  const stores = await Promise.all([1, 2, 3].map(() => open(dir)));
  const given = (await Promise.all(stores.map((store) => store.load()))).flat();
  assert.deepEqual(
    given.map(({ createdAt }) => createdAt).toSorted((a, b) => a - b),
    [...records.keys()],
  );
  // What cannot be claimed twice in one process is held back by the rename alone between processes.
  const worker = fileURLToPath(new URL('claim-worker.ts', import.meta.url));
  for (const store of stores) await store.close();
  for (const { id } of records)
    await rename(join(dir, `${id}.${ownMaker()}.json`), join(dir, `${id}.${dead}.json`));
  const children = await Promise.all(
    [1, 2].map(() => startChild(t, [process.execPath, '--import', 'tsx', worker, dir])),
  );
  await Promise.all(children.map((child) => child.printed(/^ready$/m, { deadlineMs: 20_000 })));
  await writeFile(join(dir, 'go'), '');
  const taken = await Promise.all(
    children.map((child) => child.printed(/^taken.*$/m, { deadlineMs: 20_000 })),
  );
  const ids = taken.flatMap(([line]) => line.split(' ').slice(1)).filter((id) => id !== '');
  assert.deepEqual(ids.toSorted(), records.map(({ id }) => id).toSorted());
});

test('A job whose owner is not visible is taken over when the owner stays silent, and not when it gives a sign', async (t) => {
  const dir = await tempDir(t);
  const store = await open(dir);
  const makers = [1, 2].map((pid) => makerName({ pid, startTime: 5, bootId: 'another' }));
  const marks = makers.map((maker) => join(dir, 'receivers', temporaryName(maker)));
  for (const mark of marks) await writeFile(mark, '');
  const [silent, awake] = [exampleRecord(), exampleRecord()];
  for (const [index, record] of [silent, awake].entries()) {
    await writeFile(join(dir, `${record.id}.${makers[index]}.json`), JSON.stringify(record));
  }
  assert.deepEqual(await store.load(), []);
  const heart = setInterval(() => void utimes(marks[1] ?? '', 0, performance.now()).catch(() => {}), 5);
  t.after(() => clearInterval(heart));
  assert.deepEqual(await store.loadLeft(new AbortController().signal), [silent]);
  assert.deepEqual(await store.loadLeft(new AbortController().signal), []);
  assert.deepEqual(await store.load(), [silent]);
  await assert.rejects(store.loadLeft(AbortSignal.abort(new Error('enough'))), /abort/i);
});
