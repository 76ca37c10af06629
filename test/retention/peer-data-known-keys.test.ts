/** How jobs are forgotten when another receiver changes the key of their id. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createKeyChangeGuard } from '../../src/retention/peer-data.js';
import { mine, other } from './place.js';

test('Jobs are forgotten once after a key change, again after a failure, and never for the same key', async () => {
  let table = [
    { dashboardId: mine, pin: 'a' },
    { dashboardId: other, pin: 'b' },
  ];
  const forgotten: string[] = [];
  let isBroken = false;
  const keys = createKeyChangeGuard({
    peers: () => table,
    async forgetJobs(id) {
      if (isBroken) throw new Error('the disk is full');
      forgotten.push(id);
    },
  });
  await keys.check();
  table = [];
  await keys.check();
  table = [{ dashboardId: mine, pin: 'a' }];
  await keys.check();
  assert.deepEqual(forgotten, []);

  table = [{ dashboardId: mine, pin: 'c' }];
  isBroken = true;
  await assert.rejects(keys.check());
  isBroken = false;
  await Promise.all([keys.check(), keys.check()]);
  assert.deepEqual(forgotten, [mine]);

  keys.recordKey(other, 'd');
  table = [{ dashboardId: other, pin: 'd' }];
  await keys.check();
  assert.deepEqual(forgotten, [mine]);
});
