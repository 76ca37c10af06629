/** Which waiters continue after a wake. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { createCondition } from '../../src/async/signals.js';

test('A true condition resolves at once, and a false one waits for a wake', async () => {
  const { until, wake } = createCondition();
  let holds = true;
  await until(() => holds);
  holds = false;
  let isOver = false;
  const waiting = until(() => holds).then(() => (isOver = true));
  wake();
  await turn();
  assert.equal(isOver, false, 'woken, but it does not hold yet');
  holds = true;
  await turn();
  assert.equal(isOver, false, 'nobody has said so');
  wake();
  await waiting;
});

test('A wake resolves exactly the waiters whose own condition holds', async () => {
  const { until, wake } = createCondition();
  let free = 0;
  const done: number[] = [];
  const waits = [1, 2, 3, 2].map(async (needed) => {
    await until(() => free >= needed);
    done.push(needed);
  });
  free = 2;
  wake();
  await turn();
  assert.deepEqual(done, [1, 2, 2]);
  free = 3;
  wake();
  await Promise.all(waits);
  assert.deepEqual(done, [1, 2, 2, 3]);
});
