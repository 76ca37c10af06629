/** The delivery of events, and the isolation of listeners. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createEmitter } from '../../src/async/signals.js';
import { recordingLog } from '../support/recording-log.js';

test('Listeners receive each event in the order of subscription, until they unsubscribe', () => {
  const heard: string[] = [];
  const emitter = createEmitter<string>('tests', recordingLog());
  const leave = emitter.subscribe((event) => heard.push(`first ${event}`));
  emitter.subscribe((event) => heard.push(`second ${event}`));
  emitter.emit('a');
  leave();
  emitter.emit('b');
  assert.deepEqual(heard, ['first a', 'second a', 'second b']);
});

test('A listener that throws is logged, and harms neither the emitter nor the others', () => {
  const log = recordingLog();
  const heard: string[] = [];
  const emitter = createEmitter<string>('tests', log);
  emitter.subscribe(() => {
    throw new Error('broken panel');
  });
  emitter.subscribe((event) => heard.push(event));
  emitter.emit('a');
  assert.deepEqual([heard, log.entries], [['a'], ['error: event listener threw']]);
});

test('A function that is added twice is called twice, and each is removed separately', () => {
  const heard: string[] = [];
  const emitter = createEmitter<string>('tests', recordingLog());
  const listener = (event: string): void => void heard.push(event);
  const leave = emitter.subscribe(listener);
  emitter.subscribe(listener);
  emitter.emit('a');
  leave();
  leave();
  emitter.emit('b');
  assert.deepEqual(heard, ['a', 'a', 'b']);
});

test('A listener removed during an event is not called, and one added receives the next event', () => {
  const heard: string[] = [];
  const emitter = createEmitter<string>('tests', recordingLog());
  emitter.subscribe((event) => {
    heard.push(`first ${event}`);
    leaveSecond();
    emitter.subscribe((later) => heard.push(`third ${later}`));
  });
  const leaveSecond = emitter.subscribe((event) => heard.push(`second ${event}`));
  emitter.emit('a');
  assert.deepEqual(heard, ['first a']);
  emitter.emit('b');
  assert.deepEqual(heard, ['first a', 'first b', 'third b']);
});
