/**
 * Sweeps and resets that are killed at random moments while builds run on the same disk. RETENTION_ROUNDS sets how often,
 * and RETENTION_SEED repeats the moments of an earlier run.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sweepersAreKilled } from '../retention/kill-rounds.js';
import { createChance } from '../support/killed/chance.js';

const rounds = Number(process.env['RETENTION_ROUNDS'] ?? 200);
const seed = Number(process.env['RETENTION_SEED'] ?? Date.now());

test(`In ${rounds} rounds of sweeps that are killed no build loses a file, and a start tidies up`, async (t) => {
  t.diagnostic(`RETENTION_SEED=${seed}`);
  const report = await sweepersAreKilled(t, createChance(seed), rounds);
  t.diagnostic(JSON.stringify(report));
  assert.ok(report.builds >= rounds, 'the builds were held up');
  if (rounds >= 20) assert.ok(report.killsWithTrash > 0, 'no kill was in the middle of a removal');
});
