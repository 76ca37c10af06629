/** A small storm of frames; `npm run fuzz -- frames` sends a million. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createChance } from '../support/killed/chance.js';
import { storm } from './storm.js';

test('Any frame in any state of a session ends it or not, as the protocol says', async (t) => {
  const seed = Date.now();
  t.diagnostic(`seed ${seed}`);
  const counts = await storm(createChance(seed), 20_000);
  t.diagnostic(JSON.stringify(counts));
  for (const [verdict, count] of Object.entries(counts)) assert.ok(count > 20, verdict);
});
