import { test } from 'node:test';

import { takeOver } from '../support/takeover.js';

test('A receiver that is killed in the middle of a compile leaves no process, and the one that waits builds right', async (t) => {
  await takeOver(t, 2);
});
