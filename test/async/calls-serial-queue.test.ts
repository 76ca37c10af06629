/** One call at a time, in order, for all or for each key. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { createKeyedQueue, createSerialQueue } from '../../src/async/calls.js';

/** Work that a test ends by hand, and what began and ended in which order. */
function handWork() {
  const seen: string[] = [];
  const ends = new Map<string, () => void>();
  const work = (name: string) => async (): Promise<string> => {
    seen.push(`${name} begins`);
    await new Promise<void>((resolve) => ends.set(name, resolve));
    seen.push(`${name} ends`);
    return name;
  };
  return { seen, work, end: (name: string) => ends.get(name)?.() };
}

test('Work starts in call order, each piece after the end of the one before', async () => {
  const { seen, work, end } = handWork();
  const queue = createSerialQueue();
  const results = ['a', 'b', 'c'].map((name) => queue.run(work(name)));
  for (const name of ['c', 'b', 'a', 'b', 'c']) {
    await turn();
    end(name);
  }
  assert.deepEqual(await Promise.all(results), ['a', 'b', 'c']);
  assert.deepEqual(
    seen,
    ['a', 'b', 'c'].flatMap((name) => [`${name} begins`, `${name} ends`]),
  );
});

test('An error rejects its own call and does not stop the next', async () => {
  const queue = createSerialQueue();
  const failing = queue.run(() => Promise.reject(new Error('broken')));
  const thrown = queue.run(() => {
    throw new Error('thrown');
  });
  const next = queue.run(() => Promise.resolve('next'));
  await assert.rejects(failing, /broken/);
  await assert.rejects(thrown, /thrown/);
  assert.equal(await next, 'next');
});

test('A queue is idle when the last piece has ended, one that was added meanwhile included', async () => {
  const { seen, work, end } = handWork();
  const queue = createSerialQueue();
  await queue.idle();
  const first = queue.run(work('a'));
  let isIdle = false;
  const idle = queue.idle().then(() => (isIdle = true));
  const second = queue.run(() => Promise.reject(new Error('broken')));
  const third = first.then(() => queue.run(work('b')));
  await turn();
  end('a');
  await assert.rejects(second, /broken/);
  await turn();
  assert.deepEqual([seen.at(-1), isIdle], ['b begins', false]);
  end('b');
  await Promise.all([third, idle]);
  assert.equal(seen.at(-1), 'b ends');
});

test('Keys do not wait for each other, and one that is free begins at once again', async () => {
  const { seen, work, end } = handWork();
  const queue = createKeyedQueue();
  const results = [queue.run('x', work('x1')), queue.run('y', work('y1')), queue.run('x', work('x2'))];
  await turn();
  assert.deepEqual(seen, ['x1 begins', 'y1 begins']);
  end('x1');
  await turn();
  assert.deepEqual(seen.slice(2), ['x1 ends', 'x2 begins']);
  end('y1');
  end('x2');
  await Promise.all(results);
  await queue.idle();
  const again = queue.run('x', work('x3'));
  await turn();
  end('x3');
  assert.equal(await again, 'x3');
});
