/**
 * A whole receiver, killed at random moments of submit, compile, pack and download. RECEIVER_ROUNDS sets how often, and
 * RECEIVER_SEED repeats the choices of an earlier run.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { createChance } from '../support/killed/chance.js';
import { surviveKills } from '../support/killed/rounds.js';

const rounds = Number(process.env['RECEIVER_ROUNDS'] ?? 1_000);
const seed = Number(process.env['RECEIVER_SEED'] ?? Date.now());
const sides = 4;
const root = fileURLToPath(new URL('../..', import.meta.url));
const built = join(root, 'dist');

before(() => execFileSync(process.execPath, ['scripts/build.mjs'], { cwd: root }));

test(`In ${rounds} rounds of a receiver that is killed every job that was acknowledged ends once, with its own program`, async (t) => {
  t.diagnostic(`RECEIVER_SEED=${seed}`);
  const share = Math.ceil(rounds / sides);
  // Side by side, on disks of their own: most of a round is waiting.
  const reports = await Promise.all(
    Array.from({ length: sides }, (_, n) => surviveKills(t, createChance(seed + n), share, built)),
  );
  for (const report of reports) {
    t.diagnostic(JSON.stringify(report));
    if (share < 20) continue;
    for (const moment of ['submit', 'compile', 'pack', 'download']) assert.ok(report.kills[moment], moment);
  }
});
