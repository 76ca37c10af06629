/** The order and the errors of cleanups, and that they run once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createDisposer } from '../../src/async/disposer.js';

test('The last cleanup added runs first, and each waits for the one before it', async () => {
  const ends = createDisposer();
  const order: string[] = [];
  for (const name of ['table', 'jobs', 'server']) {
    ends.add(async () => {
      order.push(`${name} ends`);
      await Promise.resolve();
      order.push(`${name} has ended`);
    });
  }
  await ends.dispose();
  assert.deepEqual(order, [
    ...['server ends', 'server has ended', 'jobs ends', 'jobs has ended'],
    ...['table ends', 'table has ended'],
  ]);
});

test('A failed cleanup stops no other, and no error is lost', async () => {
  const ends = createDisposer();
  const ended: string[] = [];
  ends.add(() => void ended.push('first'));
  ends.add(() => {
    throw new Error('second failed');
  });
  ends.add(async () => Promise.reject(new Error('third failed')));
  ends.add(() => void ended.push('fourth'));
  await assert.rejects(ends.dispose(), (error: AggregateError) => {
    assert.deepEqual(error.errors.map(String), ['Error: third failed', 'Error: second failed']);
    return true;
  });
  assert.deepEqual(ended, ['fourth', 'first']);
});

test('A single error is rethrown unchanged', async () => {
  const ends = createDisposer();
  const error = new Error('disk full');
  ends.add(() => {
    throw error;
  });
  await assert.rejects(ends.dispose(), (caught) => caught === error);
});

test('A second call waits for the first and runs no cleanup twice', async () => {
  const ends = createDisposer();
  let count = 0;
  let release = (): void => {};
  ends.add(async () => {
    count += 1;
    await new Promise<void>((resolve) => (release = resolve));
  });
  const calls = [ends.dispose(), ends.dispose()];
  release();
  await Promise.all(calls);
  assert.equal(count, 1);
});
