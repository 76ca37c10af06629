/** How many handshakes a network can begin. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { createRateLimiter } from '../../src/server/connection-limits.js';
import { manualClock } from '../async/manual-clock.js';

test('Over any period, no network starts more than its share plus one burst, and networks do not affect each other', () => {
  const steps = fc.array(fc.record({ afterMs: fc.nat(400), of: fc.constantFrom('a', 'b') }), {
    maxLength: 300,
  });
  fc.assert(
    fc.property(steps, fc.integer({ min: 1, max: 20 }), (asked, perSecond) => {
      const clock = manualClock();
      const rate = createRateLimiter({ perSecond, clock });
      const begin = clock.steady();
      const taken = { a: 0, b: 0 };
      for (const { afterMs, of } of asked) {
        clock.advance(afterMs);
        if (rate.take(of)) taken[of as 'a'] += 1;
        const most = 4 * perSecond + ((clock.steady() - begin) / 1_000) * perSecond;
        assert.ok(taken[of as 'a'] <= most + 1e-6);
      }
      const one = createRateLimiter({ perSecond, clock });
      for (let n = 0; n < 4 * perSecond; n += 1) assert.ok(one.take('a'));
      assert.equal(one.take('a'), false);
      assert.ok(one.take('b'));
    }),
  );
});

test('A flood from countless networks takes little memory, and does not reset a network that has used up its share', () => {
  const clock = manualClock();
  const rate = createRateLimiter({ perSecond: 1, clock });
  for (let n = 0; n < 4; n += 1) rate.take('busy');
  for (let n = 0; n < 4_000; n += 1) rate.take(`192.0.2.${n}`);
  assert.equal(rate.take('busy'), false);
});
