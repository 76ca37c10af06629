/** Builds, uses, sweeps, limits, clocks and crashes in a few of their orders; `npm run fuzz` tries many more. */
import { test } from 'node:test';

import { anyOrder } from './commands.js';

test('In any order, through crashes and clocks that are set, what is used is kept and what nobody uses goes', async () => {
  await anyOrder(40);
});
