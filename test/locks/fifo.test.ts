/** Covers src/locks/ticket-queue.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { isReceiverError } from '../../src/errors.js';
import { enterLine, type LinePlace, type LineRequest } from '../../src/locks/fifo.js';

let keys = 0;
const freshKey = (): string => `key-${(keys += 1)}`;

test('Waiters enter in the order in which they came, one at a time, and keys do not disturb each other', async () => {
  const key = freshKey();
  const first = await enterLine(key, { reason: 'first' });
  const entered: number[] = [];
  const waits = [1, 2, 3].map(async (number) => {
    const place = await enterLine(key, { reason: `waiter ${number}` });
    entered.push(number);
    return place;
  });
  const other = await enterLine(freshKey(), { reason: 'another key' });
  assert.deepEqual(entered, []);
  first.leave();
  first.leave();
  const second = await waits[0]!;
  await new Promise(setImmediate);
  assert.deepEqual(entered, [1], 'leaving twice lets in one');
  second.leave();
  (await waits[1]!).leave();
  (await waits[2]!).leave();
  assert.deepEqual(entered, [1, 2, 3]);
  other.leave();
});

test("A wait ends by its signal or its deadline and then stands in nobody's way", async () => {
  const key = freshKey();
  const holder = await enterLine(key, { reason: 'compile 7' });
  const cancel = new AbortController();
  const cancelled = enterLine(key, { reason: 'x', signal: cancel.signal });
  const late = enterLine(key, { reason: 'y', until: performance.now() + 20 });
  const patient = enterLine(key, { reason: 'z' });
  cancel.abort();
  await assert.rejects(cancelled, (error) => isReceiverError(error, 'CANCELLED'));
  await assert.rejects(
    late,
    (error) => isReceiverError(error, 'LOCK_TIMEOUT') && error.facts['heldFor'] === 'compile 7',
  );
  await assert.rejects(
    enterLine(freshKey(), { reason: 'x', signal: cancel.signal }),
    (error) => isReceiverError(error, 'CANCELLED'),
    'aborted before it begins',
  );
  holder.leave();
  (await patient).leave();
});

test('Each waiter learns the reason of the holder', async () => {
  const key = freshKey();
  const holder = await enterLine(key, { reason: 'compile 7' });
  const blockedBy: string[] = [];
  const onBlocked = ({ reason }: LineRequest): void => void blockedBy.push(reason);
  const a = enterLine(key, { reason: 'sweep', onBlocked });
  const b = enterLine(key, { reason: 'compile 8', onBlocked });
  assert.deepEqual(blockedBy, ['compile 7', 'compile 7']);
  holder.leave();
  (await a).leave();
  (await b).leave();
});

test('In any mix of entering, cancelling and leaving there is one holder at most, and the order is kept', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('enter' as const) }),
    fc.record({ kind: fc.constant('cancel' as const), which: fc.nat(20) }),
    fc.record({ kind: fc.constant('leave' as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const key = freshKey();
      const cancels: AbortController[] = [];
      const holders: LinePlace[] = [];
      const order: number[] = [];
      for (const each of steps) {
        if (each.kind === 'enter') {
          const number = cancels.push(new AbortController()) - 1;
          const { signal } = cancels[number]!;
          const enter = async (): Promise<void> => {
            const place = await enterLine(key, { reason: String(number), signal });
            order.push(number);
            holders.push(place);
          };
          enter().catch(() => {});
        } else if (each.kind === 'cancel') cancels[each.which % cancels.length]?.abort();
        else holders.shift()?.leave();
        await new Promise(setImmediate);
        assert.ok(holders.length <= 1);
      }
      while (holders.length > 0) {
        holders.shift()?.leave();
        await new Promise(setImmediate);
      }
      assert.deepEqual(
        order,
        order.toSorted((a, b) => a - b),
      );
      const place = await enterLine(key, { reason: 'the line is empty', until: performance.now() + 1_000 });
      place.leave();
    }),
  );
});
