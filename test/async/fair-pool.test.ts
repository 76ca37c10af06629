/** Whom a full pool keeps, whom it evicts, and what counts as one network. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { createFairPool, networkOf } from '../../src/async/fair-pool.js';

interface Taken {
  readonly id: number;
  readonly network: string;
}

test('A newcomer always gets a place, the limits always hold, and the oldest of the largest network is evicted', () => {
  const step = fc.record({
    network: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    leaves: fc.option(fc.nat(20)),
  });
  const limits = fc.record({ most: fc.integer({ min: 1, max: 8 }), share: fc.integer({ min: 1, max: 8 }) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), limits, (steps, { most, share }) => {
      const places = createFairPool({ most, mostOfNetwork: share });
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

test('A guest who is alone at its address keeps its place in a flood from fewer addresses than places', () => {
  const places = createFairPool({ most: 16 });
  const flood = (count: number): void => {
    for (let n = 0; n < count; n += 1) places.enter(`192.0.2.${n % 15}`, () => {});
  };
  flood(100);
  places.enter('192.0.2.99', () => assert.fail('he lost it'));
  flood(10_000);
});

test('A network is an IPv4 address, or the first 64 bits of an IPv6 address', () => {
  const cases = [
    ['192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::', '2001:db8:1:2'],
    ['2001:db8::9', '2001:db8:0:0'],
    ['::1', '0:0:0:0'],
    ['fe80::1%eth0', 'fe80:0:0:0'],
    ['64:ff9b::192.0.2.1', '64:ff9b:0:0'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['', ''],
  ] as const;
  for (const [address, network] of cases) assert.equal(networkOf(address), network);
});
