/** A small storm of frames; a million of them in `npm run fuzz -- frames`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createChance } from '../support/killed/chance.js';
import { storm } from './storm.js';

test('Any frames at every state of a session end it or do not, as the protocol says', async (t) => {
  const seed = Date.now();
  t.diagnostic(`seed ${seed}`);
  const counts = await storm(createChance(seed), 20_000);
  t.diagnostic(JSON.stringify(counts));
  for (const [verdict, count] of Object.entries(counts)) assert.ok(count > 20, verdict);
});
