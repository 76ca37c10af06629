/**
 * Which devices a quota removes, as a property of every set of devices. Covers src/retention/device-record.ts
 * and src/retention/device-usage.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { bytesOf, type DeviceRecord } from '../../src/retention/device-usage.js';
import { overQuota } from '../../src/retention/quota.js';
import { keyOf, mine, other } from './place.js';

const records = fc
  .uniqueArray(
    fc.record({
      peer: fc.constantFrom(mine, other),
      device: fc.integer({ min: 0, max: 30 }),
      usedAt: fc.integer({ min: 0, max: 1_000 }),
      build: fc.integer({ min: 0, max: 100 }),
      isKnown: fc.boolean(),
      isBusy: fc.boolean(),
    }),
    { maxLength: 20, selector: ({ peer, device }) => `${peer} ${device}` },
  )
  .map((list) =>
    list.map(({ peer, device, usedAt, build, isKnown, isBusy }) => ({
      isBusy,
      record: {
        ...keyOf(peer, `d${device}`),
        ...{ usedAt, measuredAt: 0, sizes: isKnown ? { config: 0, build, other: 0 } : null },
      } satisfies DeviceRecord,
    })),
  );
const limit = fc.option(fc.integer({ min: 0, max: 500 }));
const sum = (list: readonly DeviceRecord[]): number => list.reduce((total, each) => total + bytesOf(each), 0);

test('Chosen devices are never in use, free enough if possible, and are no more than needed', () => {
  fc.assert(
    fc.property(
      records,
      limit,
      limit,
      fc.integer({ min: 0, max: 300 }),
      (devices, all, perPeer, missingBytes) => {
        const busy = new Set(devices.filter(({ isBusy }) => isBusy).map(({ record }) => record));
        const list = devices.map(({ record }) => record);
        const quota = { maxBuildBytes: all, maxBuildBytesPerPeer: perPeer, missingBytes };
        const chosen = overQuota(list, quota, (record) => busy.has(record));
        assert.ok(chosen.every((record) => !busy.has(record)));
        const stay = list.filter((record) => !chosen.includes(record));
        const idle = stay.filter((record) => !busy.has(record) && bytesOf(record) > 0);
        const fits = (kept: readonly DeviceRecord[]): boolean =>
          (all === null || sum(kept) <= all) &&
          (perPeer === null ||
            [mine, other].every((id) => sum(kept.filter((each) => each.dashboardId === id)) <= perPeer)) &&
          sum(list) - sum(kept) >= missingBytes;
        const couldGo = (id: string | null): boolean =>
          idle.some((record) => id === null || record.dashboardId === id);
        if (all !== null && sum(stay) > all) assert.ok(!couldGo(null));
        if (sum(list) - sum(stay) < missingBytes) assert.ok(!couldGo(null));
        for (const id of [mine, other]) {
          const own = sum(stay.filter((record) => record.dashboardId === id));
          if (perPeer !== null && own > perPeer) assert.ok(!couldGo(id));
        }
        // The last used of them had to go: without its removal the rest would not fit.
        const last = chosen.at(-1);
        if (last !== undefined) assert.ok(!fits([...stay, last]) || chosen.length > 1);
      },
    ),
    { numRuns: 2_000 },
  );
});

test('The least recently used device of the peer above its share goes first', () => {
  const device = (peer: typeof mine, name: string, usedAt: number): DeviceRecord => ({
    ...keyOf(peer, name),
    ...{ usedAt, measuredAt: 1, sizes: { config: 0, build: 100, other: 0 } },
  });
  const list = [device(mine, 'new', 3), device(mine, 'old', 2), device(other, 'oldest', 1)];
  const none = { maxBuildBytes: null, maxBuildBytesPerPeer: null, missingBytes: 0 };
  const names = (quota: Partial<typeof none> | object): string[] =>
    overQuota(list, { ...none, ...quota }, () => false).map((record) => record.device);
  assert.deepEqual(names({}), []);
  assert.deepEqual(names({ maxBuildBytesPerPeer: 100 }), ['old']);
  assert.deepEqual(names({ maxBuildBytes: 200 }), ['old']);
  assert.deepEqual(names({ maxBuildBytes: 199 }), ['oldest', 'old']);
  assert.deepEqual(names({ missingBytes: 1 }), ['old']);
  assert.deepEqual(names({ maxBuildBytes: 0 }), ['oldest', 'old', 'new']);
});

test('A peer within an equal share loses nothing to a peer that builds a lot at once', () => {
  fc.assert(
    fc.property(
      records.map((list) => list.map(({ record }) => record)),
      fc.integer({ min: 0, max: 500 }),
      fc.integer({ min: 0, max: 300 }),
      (list, maxBuildBytes, missingBytes) => {
        for (const quota of [
          { maxBuildBytes, maxBuildBytesPerPeer: null, missingBytes: 0 },
          { maxBuildBytes: null, maxBuildBytesPerPeer: null, missingBytes },
        ]) {
          const chosen = overQuota(list, quota, () => false);
          const mayStay = quota.maxBuildBytes ?? Math.max(0, sum(list) - missingBytes);
          for (const id of [mine, other]) {
            const own = sum(list.filter(({ dashboardId }) => dashboardId === id));
            if (own <= mayStay / 2) assert.ok(chosen.every(({ dashboardId }) => dashboardId !== id));
          }
        }
      },
    ),
    { numRuns: 2_000 },
  );
});
