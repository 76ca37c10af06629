import { test } from 'node:test';

import { takeOver } from '../support/takeover.js';

const rounds = Number(process.env['TORTURE_ROUNDS'] ?? 200);

test(`In ${rounds} rounds of a receiver killed in the middle of a compile the next one builds right, alone`, async (t) => {
  await takeOver(t, rounds);
});
