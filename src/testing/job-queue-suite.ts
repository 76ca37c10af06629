/** The contract of a job queue as tests: call the suite from a test file with a factory of queues. */
import assert from 'node:assert/strict';
import { describe, test, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { hostPeer, type JobQueue, type QueueTicket, type Slot } from '../jobs/queue.js';

/** Creates an empty queue. Register cleanups with `t.after`. */
export type QueueFactory = (t: TestContext, options: { readonly slots: number }) => Promise<JobQueue>;

const never = new AbortController().signal;

function ticket(facts: Partial<QueueTicket> = {}): QueueTicket {
  return { peer: 'peer_one', target: 'compile', signal: never, ...facts };
}

/** Registers the tests under `name`. `settleMs`: the longest time from a release until the next job has the slot. */
export function jobQueueSuite(name: string, make: QueueFactory, { settleMs = 0 } = {}): void {
  /** The slot, or null while the job waits. */
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
    test('At most as many jobs run as there are slots, and they run in order', async (t) => {
      const queue = await make(t, { slots: 2 });
      const jobs = ['a', 'b', 'c', 'd'].map((id) => watch(queue.enter(id, ticket())));
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

    test('A slot is freed once, however often it is released', async (t) => {
      const queue = await make(t, { slots: 1 });
      const [first, second, third] = ['a', 'b', 'c'].map((id) => watch(queue.enter(id, ticket())));
      await settle();
      first?.slot?.release();
      first?.slot?.release();
      await settle();
      assert.notEqual(second?.slot, null);
      assert.equal(third?.slot, null);
    });

    test('A cancelled waiting job rejects with the reason, and the others keep their order', async (t) => {
      const queue = await make(t, { slots: 1 });
      const controller = new AbortController();
      const first = watch(queue.enter('a', ticket()));
      const second = watch(queue.enter('b', ticket({ signal: controller.signal })));
      const third = watch(queue.enter('c', ticket()));
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
      await assert.rejects(queue.enter('a', ticket({ signal: AbortSignal.abort(reason) })), reason);
      assert.deepEqual(queue.status(), { running: [], waiting: [] });
    });

    test('Cancelling after a job has its slot changes nothing', async (t) => {
      const queue = await make(t, { slots: 1 });
      const controller = new AbortController();
      const slot = await queue.enter('a', ticket({ signal: controller.signal }));
      controller.abort();
      await settle();
      assert.deepEqual(queue.status(), { running: ['a'], waiting: [] });
      slot.release();
      assert.deepEqual(queue.status(), { running: [], waiting: [] });
    });

    test('Peers take turns, however many jobs one of them has, and the host counts as a peer', async (t) => {
      const queue = await make(t, { slots: 1 });
      const served: string[] = [];
      const slots = new Map<string, Slot>();
      async function enter(id: string, peer: string): Promise<void> {
        slots.set(id, await queue.enter(id, ticket({ peer })));
        served.push(id);
      }
      for (const id of ['a1', 'a2', 'a3', 'a4']) void enter(id, 'peer_a');
      for (const id of ['b1', 'b2']) void enter(id, 'peer_b');
      void enter('host1', hostPeer);
      await settle();
      const announced = [...queue.status().running, ...queue.status().waiting];
      while (served.length < 7) {
        slots.get(served.at(-1) ?? '')?.release();
        const before = served.length;
        await settle();
        assert.equal(served.length, before + 1, 'a slot was free and no job got it');
      }
      assert.deepEqual(served, announced, 'the order differs from the announced one');
      for (const peer of ['a', 'b']) {
        const own = served.filter((id) => id.startsWith(peer));
        assert.deepEqual(own, own.toSorted(), 'jobs of one peer overtook each other');
      }
      // While the others waited, the first peer had its running job and one more.
      for (const id of ['b1', 'host1']) {
        const before = served.slice(0, served.indexOf(id));
        assert.ok(before.filter((other) => other.startsWith('a')).length <= 2, `${id} came too late`);
      }
      assert.ok(served.indexOf('b2') < served.indexOf('a4'), 'b2 came too late');
    });

    test('A later peer waits for at most one job of each other peer', async (t) => {
      const queue = await make(t, { slots: 1 });
      const first = watch(queue.enter('a1', ticket({ peer: 'peer_a' })));
      for (const id of ['a2', 'a3', 'a4']) watch(queue.enter(id, ticket({ peer: 'peer_a' })));
      await settle();
      const late = watch(queue.enter('b1', ticket({ peer: 'peer_b' })));
      await settle();
      assert.ok(queue.status().waiting.indexOf('b1') <= 1);
      first.slot?.release();
      await settle();
      if (late.slot === null) assert.deepEqual(queue.status().waiting.slice(0, 1), ['b1']);
    });

    test('All free slots are used, even by a single peer', async (t) => {
      const queue = await make(t, { slots: 3 });
      const jobs = ['a1', 'a2', 'a3', 'a4'].map((id) => watch(queue.enter(id, ticket({ peer: 'peer_a' }))));
      await settle();
      assert.deepEqual(
        jobs.map(({ slot }) => slot !== null),
        [true, true, true, false],
      );
    });
  });
}
