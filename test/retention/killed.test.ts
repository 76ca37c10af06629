/** Kills a few sweeps in a row while builds run; test/torture runs this for longer. */
import { test } from 'node:test';

import { createChance } from '../support/killed/chance.js';
import { sweepersAreKilled } from './kill-rounds.js';

test('No build loses a file when sweeps are killed at random, and the next start cleans up', async (t) => {
  const seed = Date.now();
  t.diagnostic(`seed ${seed}`);
  t.diagnostic(JSON.stringify(await sweepersAreKilled(t, createChance(seed), 8)));
});
