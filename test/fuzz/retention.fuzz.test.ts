import { existsSync } from 'node:fs';
import { test } from 'node:test';

import { anyOrder } from '../retention/commands.js';

/** A run is some weeks of a receiver's life; the default is 2,500. */
const runs = Math.ceil(Number(process.env['FUZZ_RUNS'] ?? 250_000) / 100);
const memory = '/dev/shm';

test(`retention: in any order what is used is kept and what nobody uses goes, ${runs} lives`, async () => {
  // Each record is synced, which a real disk takes milliseconds for.
  if (existsSync(memory)) process.env['TMPDIR'] = memory;
  await anyOrder(runs);
});
