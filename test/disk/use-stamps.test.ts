import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createUseStamps, type UseStamps } from '../../src/disk/use-stamps.js';
import { silentLog as log } from '../../src/log.js';
import { tempDir } from '../support/temp-dir.js';

interface Place {
  readonly file: string;
  readonly stamps: UseStamps;
  /** Milliseconds since 1970; to be moved by the test. */
  time: number;
}

async function place(t: TestContext): Promise<Place> {
  const here = { file: join(await tempDir(t), 'used'), time: 1_800_000_000_000 };
  return Object.assign(here, { stamps: createUseStamps({ now: () => here.time, log }) });
}

const minute = 60_000;

test('A use is on record to the minute, and is what the next look finds', async (t) => {
  const here = await place(t);
  const start = here.time;
  await here.stamps.note(here.file);
  here.time += minute - 1;
  await here.stamps.note(here.file);
  assert.equal(await readFile(here.file, 'utf8'), String(start));
  here.time += 1;
  await here.stamps.note(here.file);
  assert.equal(await readFile(here.file, 'utf8'), String(start + minute));
  here.time += 1_000 * minute;
  assert.equal(await here.stamps.last(here.file), start + minute);
});

test('What has no stamp counts as used now, and gets older from then on', async (t) => {
  const here = await place(t);
  const start = here.time;
  assert.equal(await here.stamps.last(here.file), start);
  here.time += 5 * minute;
  assert.equal(await here.stamps.last(here.file), start);
  assert.equal(await readFile(here.file, 'utf8'), String(start));
});

for (const [what, text] of [
  ['to come', '1900000000000'],
  ['before this software', '1600000000000'],
  ['that is none', '0'],
  ['that is damaged', '18000'],
  ['with more than digits', '1.7e12'],
] as const) {
  test(`A time ${what} counts as now, and is corrected on the disk`, async (t) => {
    const here = await place(t);
    await writeFile(here.file, text);
    const start = here.time;
    assert.equal(await here.stamps.last(here.file), start);
    here.time += 5 * minute;
    assert.equal(await here.stamps.last(here.file), start);
  });
}

test('A clock that runs a little ahead elsewhere is no wrong clock', async (t) => {
  const here = await place(t);
  await writeFile(here.file, String(here.time + minute));
  assert.equal(await here.stamps.last(here.file), here.time + minute);
});

test('Where nothing can be written the first look stands for a stamp', async (t) => {
  const here = await place(t);
  const start = here.time;
  await rm(join(here.file, '..'), { recursive: true });
  assert.equal(await here.stamps.last(here.file), start);
  here.time += 5 * minute;
  assert.equal(await here.stamps.last(here.file), start);
  await here.stamps.forget(here.file);
  assert.equal(await here.stamps.last(here.file), here.time);
});
