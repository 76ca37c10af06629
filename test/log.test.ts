/** The limited log of refusals. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createRefusalLog, silentLog } from '../src/log.js';
import { manualClock } from './async/manual-clock.js';

test('A flood of refusals writes a bounded number of lines, and the next one counts the omitted ones', () => {
  const lines: Readonly<Record<string, unknown>>[] = [];
  const clock = manualClock();
  const log = { ...silentLog, warn: (facts: Readonly<Record<string, unknown>>) => void lines.push(facts) };
  const warn = createRefusalLog(log, clock, { perMinute: 3 });
  for (let n = 0; n < 1_000; n += 1) warn({ n }, 'connection refused');
  assert.deepEqual(lines, [{ n: 0 }, { n: 1 }, { n: 2 }]);
  clock.advance(60_000);
  warn({ n: 'later' }, 'connection refused');
  warn({ n: 'next' }, 'connection refused');
  assert.deepEqual(lines.slice(3), [{ n: 'later', suppressed: 997 }, { n: 'next' }]);
});
