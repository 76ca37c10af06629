/** Adding and removing listeners of a signal, and races of work and abort. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { onAbort, raceAbort } from '../../src/async/calls.js';

const never = new Promise<never>(() => {});

function listenersOf(signal: AbortSignal): number {
  return getEventListeners(signal, 'abort').length;
}

test('A listener is called once when the signal aborts, and at once when it has aborted already', () => {
  const controller = new AbortController();
  let calls = 0;
  const count = (): void => void (calls += 1);
  onAbort(controller.signal, count);
  assert.equal(calls, 0);
  controller.abort();
  controller.signal.dispatchEvent(new Event('abort'));
  assert.equal(calls, 1);
  onAbort(controller.signal, count);
  assert.equal(calls, 2);
});

test('A listener that has stopped listening is not called and does not stay on the signal', () => {
  const controller = new AbortController();
  const stop = onAbort(controller.signal, () => assert.fail('called after it had stopped'));
  assert.equal(listenersOf(controller.signal), 1);
  stop();
  stop();
  assert.equal(listenersOf(controller.signal), 0);
  controller.abort();
});

test('Without a signal nothing is called, and a race is the promise alone', async () => {
  onAbort(undefined, () => assert.fail('called without a signal'))();
  assert.equal(await raceAbort(Promise.resolve('done'), undefined), 'done');
});

test('A race settles as its promise does, and leaves no listener on the signal', async () => {
  const { signal } = new AbortController();
  const error = new Error('broken');
  assert.equal(await raceAbort(Promise.resolve('done'), signal), 'done');
  await assert.rejects(raceAbort(Promise.reject(error), signal), error);
  assert.equal(listenersOf(signal), 0);
});

test('An abort rejects the race with the reason of the signal, or with the one that was asked for', async () => {
  const controller = new AbortController();
  const races = [raceAbort(never, controller.signal), raceAbort(never, controller.signal, () => 'mine')];
  controller.abort('gone');
  assert.deepEqual(
    (await Promise.allSettled(races)).map((result) => result.status === 'rejected' && result.reason),
    ['gone', 'mine'],
  );
});

test('A signal that was aborted before wins over a promise that has settled', async () => {
  await assert.rejects(
    raceAbort(Promise.resolve('done'), AbortSignal.abort('gone')),
    (reason) => reason === 'gone',
  );
});

test('A rejection of the promise after the abort is not an unhandled rejection', async (t) => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  t.after(() => process.off('unhandledRejection', note));
  let fail = (_error: Error): void => {};
  const late = new Promise<never>((_resolve, reject) => (fail = reject));
  await assert.rejects(raceAbort(late, AbortSignal.abort('gone')), (reason) => reason === 'gone');
  fail(new Error('late'));
  await turn();
  assert.deepEqual(unhandled, []);
});
