import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createKnownVersion } from '../../src/provision/installed.js';

test('A crowd of strangers costs one question, and the answer is renewed after half a minute', async () => {
  let now = 0;
  let asked = 0;
  let finish = (_version: string): void => {};
  const knownVersion = createKnownVersion(
    () => {
      asked += 1;
      return new Promise((resolve) => {
        finish = resolve;
      });
    },
    () => now,
  );
  const crowd = Array.from({ length: 100 }, () => knownVersion());
  now = 60_000;
  const late = knownVersion();
  finish('2026.10.0');
  assert.deepEqual(new Set(await Promise.all([...crowd, late])), new Set(['2026.10.0']));
  assert.equal(asked, 1);
  now += 29_999;
  await knownVersion();
  assert.equal(asked, 1);
  now += 1;
  const renewed = knownVersion();
  finish('2026.11.0');
  assert.equal(await renewed, '2026.11.0');
});

test('A failure is shared like an answer, and asked again later', async () => {
  let now = 0;
  let asked = 0;
  const knownVersion = createKnownVersion(
    () => Promise.reject(new Error(`no ESPHome, ${(asked += 1)}`)),
    () => now,
  );
  await assert.rejects(knownVersion(), /1/);
  await assert.rejects(knownVersion(), /1/);
  now += 30_000;
  await assert.rejects(knownVersion(), /2/);
});
