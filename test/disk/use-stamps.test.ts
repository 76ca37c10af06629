import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createUseStamps } from '../../src/disk/use-stamps.js';
import { silentLog as log } from '../../src/log.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';
import { tempDir } from '../support/temp-dir.js';

interface Place {
  readonly file: string;
  readonly stamps: ReturnType<typeof createUseStamps>;
  readonly clock: ManualClock;
}

async function place(t: TestContext): Promise<Place> {
  const here = { file: join(await tempDir(t), 'used'), clock: manualClock() };
  return Object.assign(here, { stamps: createUseStamps({ ...here, log }) });
}

const minute = 60_000;

test('A use is recorded to the minute, and found by the next read', async (t) => {
  const here = await place(t);
  const start = here.clock.wall();
  await here.stamps.recordUse(here.file);
  here.clock.advance(minute - 1);
  await here.stamps.recordUse(here.file);
  assert.equal(await readFile(here.file, 'utf8'), String(start));
  here.clock.advance(1);
  await here.stamps.recordUse(here.file);
  assert.equal(await readFile(here.file, 'utf8'), String(start + minute));
  here.clock.advance(1_000 * minute);
  assert.equal(await here.stamps.last(here.file), start + minute);
});

test('A directory without a stamp counts as used now, and ages from then on', async (t) => {
  const here = await place(t);
  const start = here.clock.wall();
  assert.equal(await here.stamps.last(here.file), start);
  here.clock.advance(5 * minute);
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
    const start = here.clock.wall();
    assert.equal(await here.stamps.last(here.file), start);
    here.clock.advance(5 * minute);
    assert.equal(await here.stamps.last(here.file), start);
  });
}

test('The clock of another machine can be slightly ahead', async (t) => {
  const here = await place(t);
  await writeFile(here.file, String(here.clock.wall() + minute));
  assert.equal(await here.stamps.last(here.file), here.clock.wall() + minute);
});

test('If nothing can be written, the first read replaces the stamp', async (t) => {
  const here = await place(t);
  const start = here.clock.wall();
  await rm(join(here.file, '..'), { recursive: true });
  assert.equal(await here.stamps.last(here.file), start);
  here.clock.advance(5 * minute);
  assert.equal(await here.stamps.last(here.file), start);
  await here.stamps.forget(here.file);
  assert.equal(await here.stamps.last(here.file), here.clock.wall());
});
