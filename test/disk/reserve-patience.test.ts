import assert from 'node:assert/strict';
import { test } from 'node:test';

import { patiently } from '../../src/disk/reserve.js';
import { ReceiverError } from '../../src/errors.js';
import { recordingLog } from '../support/recording-log.js';

const full = Object.assign(new Error('write /a/place'), { code: 'ENOSPC' });
const { signal } = new AbortController();

test('A step that the disk refuses is repeated, and each refusal is logged', async () => {
  const log = recordingLog();
  let left = 2;
  const act = async (): Promise<string> => {
    left -= 1;
    if (left >= 0) throw left === 1 ? full : new ReceiverError('STORAGE', 'a lock', {}, { cause: full });
    return 'done';
  };
  assert.equal(await patiently(act, signal, log, [1, 1, 1]), 'done');
  assert.equal(log.entries.length, 2);
});

test('After the last pause the refusal is thrown', async () => {
  let tries = 0;
  const act = (): Promise<never> => {
    tries += 1;
    return Promise.reject(full);
  };
  await assert.rejects(patiently(act, signal, recordingLog(), [1, 1]), full);
  assert.equal(tries, 3);
});

test('Any other error is thrown at once, and so is every error after an abort', async () => {
  const gone = new AbortController();
  gone.abort();
  for (const [error, stop] of [
    [new ReceiverError('FENCED', 'newer'), signal],
    [new Error('a bug'), signal],
    [full, gone.signal],
  ] as const) {
    let tries = 0;
    const act = (): Promise<never> => {
      tries += 1;
      return Promise.reject(error);
    };
    await assert.rejects(patiently(act, stop, recordingLog(), [1]), error);
    assert.equal(tries, 1);
  }
});

test('An abort ends a pause', async () => {
  const stopping = new AbortController();
  const waiting = patiently(() => Promise.reject(full), stopping.signal, recordingLog(), [3_600_000]);
  setImmediate(() => stopping.abort());
  await assert.rejects(waiting, full);
});
