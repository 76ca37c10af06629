/** Builds, uses, sweeps, limits, clock changes and crashes in a few random orders; `npm run fuzz` tries many more. */
import { test } from 'node:test';

import { anyOrder } from './commands.js';

test('In any order of events, crashes and clock changes, used builds stay and unused ones are removed', async () => {
  await anyOrder(40);
});
