import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createKnownVersion, type Installed } from '../../src/provision/installed.js';
import { manualClock } from '../async/manual-clock.js';

test('Many callers share one query, and the answer expires after half a minute', async () => {
  const clock = manualClock();
  let asked = 0;
  let finish = (_version: string): void => {};
  const ask = (): Promise<Installed> => {
    asked += 1;
    return new Promise((resolve) => {
      finish = (version) => resolve({ command: ['esphome'], version, askedAt: 0 });
    });
  };
  const knownVersion = createKnownVersion({ ask }, clock);
  const crowd = Array.from({ length: 100 }, () => knownVersion());
  clock.advance(60_000);
  const late = knownVersion();
  finish('2026.10.0');
  assert.deepEqual(new Set(await Promise.all([...crowd, late])), new Set(['2026.10.0']));
  assert.equal(asked, 1);
  clock.advance(29_999);
  await knownVersion();
  assert.equal(asked, 1);
  clock.advance(1);
  const renewed = knownVersion();
  finish('2026.11.0');
  assert.equal(await renewed, '2026.11.0');
});

test('A failure is shared like an answer, and also expires', async () => {
  const clock = manualClock();
  let asked = 0;
  const ask = (): Promise<Installed> => Promise.reject(new Error(`no ESPHome, ${(asked += 1)}`));
  const knownVersion = createKnownVersion({ ask }, clock);
  await assert.rejects(knownVersion(), /1/);
  await assert.rejects(knownVersion(), /1/);
  clock.advance(30_000);
  await assert.rejects(knownVersion(), /2/);
});
