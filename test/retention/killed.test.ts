/** Sweeps that are killed a few times in a row, beside builds; for long in test/torture. */
import { test } from 'node:test';

import { createChance } from '../support/killed/chance.js';
import { sweepersAreKilled } from './kill-rounds.js';

test('Beside sweeps that are killed at random moments no build loses a file, and a start tidies up', async (t) => {
  const seed = Date.now();
  t.diagnostic(`seed ${seed}`);
  t.diagnostic(JSON.stringify(await sweepersAreKilled(t, createChance(seed), 8)));
});
