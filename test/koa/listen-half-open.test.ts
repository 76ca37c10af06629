/** How long a socket can stay without an upgrade, and what many such sockets cost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { createHalfOpen } from '../../src/koa/listen.js';
import { manualClock } from '../async/manual-clock.js';

const handshakeTimeoutMs = 5_000;

test('A socket without a timely upgrade is ended once, on time, and a released one is never ended', () => {
  const step = fc.record({ afterMs: fc.nat(3_000), leavesAfterMs: fc.option(fc.nat(10_000)) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const clock = manualClock();
      const halfOpen = createHalfOpen({ sockets: 100, handshakeTimeoutMs }, clock);
      const sockets = steps.map(({ afterMs, leavesAfterMs }) => {
        clock.advance(afterMs);
        const socket = { arrived: clock.steady(), leavesAfterMs, ends: [] as number[] };
        const leave = halfOpen.enter('a', () => socket.ends.push(clock.steady() - socket.arrived));
        if (leavesAfterMs !== null) clock.after(leavesAfterMs, leave);
        return socket;
      });
      clock.advance(30_000);
      for (const { leavesAfterMs, ends } of sockets) {
        if (leavesAfterMs !== null && leavesAfterMs < handshakeTimeoutMs) assert.deepEqual(ends, []);
        else if (leavesAfterMs === null || leavesAfterMs > handshakeTimeoutMs)
          assert.deepEqual(ends, [handshakeTimeoutMs]);
      }
      assert.equal(clock.waiting, 0, 'no timer is left');
    }),
  );
});

test('There are no more timers than places, and a socket that was replaced is not ended again', () => {
  const clock = manualClock();
  const halfOpen = createHalfOpen({ sockets: 16, handshakeTimeoutMs }, clock);
  let ended = 0;
  for (let n = 0; n < 1_000; n += 1) {
    halfOpen.enter('a', () => (ended += 1));
    assert.ok(clock.waiting <= 16);
  }
  assert.equal(ended, 984);
  clock.advance(handshakeTimeoutMs);
  assert.equal(ended, 1_000);
});
