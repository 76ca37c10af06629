/** FUZZ_RUNS frames, a million unless said; FUZZ_SEED repeats an earlier run. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { storm } from '../server/storm.js';
import { createChance } from '../support/killed/chance.js';

const frames = Number(process.env['FUZZ_RUNS'] ?? 1_000_000);
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now());
const tenths = 10;
const mostGrowthBytes = 16 * 2 ** 20;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

function heapBytes(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

test(`frames: ${frames} of any kind at every state break no session's rule and leave no memory behind`, async (t) => {
  t.diagnostic(`FUZZ_SEED=${seed}`);
  const chance = createChance(seed);
  const heaps: number[] = [];
  for (let n = 0; n < tenths; n += 1) {
    t.diagnostic(JSON.stringify(await storm(chance, frames / tenths)));
    heaps.push(heapBytes());
  }
  t.diagnostic(
    `heap after each tenth, in MiB: ${heaps.map((heap) => (heap / 2 ** 20).toFixed(1)).join(' ')}`,
  );
  assert.ok((heaps.at(-1) ?? 0) - (heaps[0] ?? 0) < mostGrowthBytes, 'the heap grows');
});
