/**
 * What every job queue promises, as tests: call it from a test file with a way to make a queue.
 */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import type { JobQueue, Slot } from '../jobs/queue.js';

/** Makes an empty queue. Clean-ups go to `t.after`. */
export type QueueFactory = (t: TestContext, options: { readonly slots: number }) => Promise<JobQueue>;

const never = new AbortController().signal;

/** Registers the tests under `name`. `settleMs`: the longest time between a release and the next one's turn. */
export function jobQueueSuite(name: string, make: QueueFactory, { settleMs = 0 } = {}): void {
  /** The queue's answer, or null while the job still waits. */
  function watch(entering: Promise<Slot>): { slot: Slot | null; error: unknown } {
    const seen: { slot: Slot | null; error: unknown } = { slot: null, error: undefined };
    entering.then(
      (slot) => (seen.slot = slot),
      (error: unknown) => (seen.error = error),
    );
    return seen;
  }

  async function settle(): Promise<void> {
    const until = performance.now() + settleMs;
    do await turn();
    while (performance.now() < until);
  }

  describe(name, () => {
    test('No more jobs hold a slot than there are slots, and they are served in order', async (t) => {
      const queue = await make(t, { slots: 2 });
      const jobs = ['a', 'b', 'c', 'd'].map((id) => watch(queue.enter(id, { signal: never })));
      await settle();
      assert.deepEqual(
        jobs.map((job) => job.slot !== null),
        [true, true, false, false],
      );
      assert.deepEqual(queue.status(), { running: ['a', 'b'], waiting: ['c', 'd'] });
      jobs[1]?.slot?.release();
      await settle();
      assert.deepEqual(
        jobs.map((job) => job.slot !== null),
        [true, true, true, false],
      );
      assert.deepEqual(queue.status(), { running: ['a', 'c'], waiting: ['d'] });
    });

    test('A slot is given back once, however often it is released', async (t) => {
      const queue = await make(t, { slots: 1 });
      const [first, second, third] = ['a', 'b', 'c'].map((id) => watch(queue.enter(id, { signal: never })));
      await settle();
      first?.slot?.release();
      first?.slot?.release();
      await settle();
      assert.notEqual(second?.slot, null);
      assert.equal(third?.slot, null);
    });

    test('A waiting job that is cancelled leaves with the reason, and the others keep their places', async (t) => {
      const queue = await make(t, { slots: 1 });
      const controller = new AbortController();
      const first = watch(queue.enter('a', { signal: never }));
      const second = watch(queue.enter('b', { signal: controller.signal }));
      const third = watch(queue.enter('c', { signal: never }));
      await settle();
      const reason = new Error('no longer wanted');
      controller.abort(reason);
      await settle();
      assert.equal(second.error, reason);
      assert.deepEqual(queue.status(), { running: ['a'], waiting: ['c'] });
      first.slot?.release();
      await settle();
      assert.notEqual(third.slot, null);
    });

    test('A job that is cancelled before it enters does not take a slot', async (t) => {
      const queue = await make(t, { slots: 1 });
      const reason = new Error('no longer wanted');
      await assert.rejects(queue.enter('a', { signal: AbortSignal.abort(reason) }), reason);
      assert.deepEqual(queue.status(), { running: [], waiting: [] });
    });

    test('Cancelling after a job has its slot changes nothing', async (t) => {
      const queue = await make(t, { slots: 1 });
      const controller = new AbortController();
      const slot = await queue.enter('a', { signal: controller.signal });
      controller.abort();
      await settle();
      assert.deepEqual(queue.status(), { running: ['a'], waiting: [] });
      slot.release();
      assert.deepEqual(queue.status(), { running: [], waiting: [] });
    });
  });
}
