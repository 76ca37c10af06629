/** Which connections a full pool keeps, and which it evicts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { createConnectionPool } from '../../src/server/connection-limits.js';

interface Taken {
  readonly id: number;
  readonly network: string;
}

test('A new connection always gets a place, the limits always hold, and the oldest of the largest network is evicted', () => {
  const step = fc.record({
    network: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    leaves: fc.option(fc.nat(20)),
  });
  const limits = fc.record({ most: fc.integer({ min: 1, max: 8 }), share: fc.integer({ min: 1, max: 8 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), limits, (steps, { most, share }) => {
      const places = createConnectionPool({ most, mostOfNetwork: share });
      let taken: Taken[] = [];
      const leave: (() => void)[] = [];
      const count = (network: string): number => taken.filter((one) => one.network === network).length;

      function evicted(id: number, newcomer: string): void {
        const loser = taken.find((one) => one.id === id);
        assert.ok(loser, 'one who has a place');
        assert.equal(
          taken.find(({ network }) => network === loser.network)?.id,
          id,
          'the oldest of his network',
        );
        if (count(newcomer) >= share) assert.equal(loser.network, newcomer);
        else {
          assert.equal(taken.length, most, 'there was no room');
          const withHim = (network: string): number => count(network) + (network === newcomer ? 1 : 0);
          assert.equal(withHim(loser.network), Math.max(...taken.map(({ network: of }) => withHim(of))));
        }
        taken = taken.filter((one) => one !== loser);
      }

      for (const [id, { network, leaves }] of steps.entries()) {
        leave.push(places.enter(network, () => evicted(id, steps[leave.length]?.network ?? '')));
        taken.push({ id, network });
        assert.ok(taken.length <= most && count(network) <= share);
        if (leaves === null) continue;
        leave[leaves]?.();
        taken = taken.filter((one) => one.id !== leaves);
      }
    }),
  );
});

test('A connection alone at its address keeps its place in a flood from fewer addresses than places', () => {
  const places = createConnectionPool({ most: 16 });
  const flood = (count: number): void => {
    for (let n = 0; n < count; n += 1) places.enter(`192.0.2.${n % 15}`, () => {});
  };
  flood(100);
  places.enter('192.0.2.99', () => assert.fail('he lost it'));
  flood(10_000);
});
