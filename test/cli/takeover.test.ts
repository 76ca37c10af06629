import { test } from 'node:test';

import { takeOver } from '../support/takeover.js';

test('A receiver that is killed during a compile leaves no process, and a waiting one builds correctly', async (t) => {
  await takeOver(t, 2);
});
