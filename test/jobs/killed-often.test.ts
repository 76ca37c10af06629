/** A receiver that is killed a few times in a row; for hours in test/torture. */
import { test } from 'node:test';

import { createChance } from '../support/killed/chance.js';
import { surviveKills } from '../support/killed/rounds.js';

test('After a few kills at random moments every job has ended once, with its own firmware, and no files are left over', async (t) => {
  const seed = Date.now();
  t.diagnostic(`seed ${seed}`);
  t.diagnostic(JSON.stringify(await surviveKills(t, createChance(seed), 4)));
});
