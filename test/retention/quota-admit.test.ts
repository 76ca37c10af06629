/** Whether an upload fits, tested at the exact byte of each limit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { noRoomFor, takenBy, type RoomFacts } from '../../src/retention/quota.js';
import type { DeviceRecord } from '../../src/retention/device-usage.js';
import { keyOf, mine, other } from './place.js';

const noLimits = { maxBuildBytes: null, maxBuildBytesPerPeer: null };

function device(peer: typeof mine, name: string, build: number | null): DeviceRecord {
  const sizes = build === null ? null : { config: 0, build, other: 0 };
  return { ...keyOf(peer, name), usedAt: 0, measuredAt: 0, sizes };
}

/** The answer to `mine` while the devices of `busy` are in use. */
function answer(
  bytes: number,
  { records, ...facts }: Partial<RoomFacts> & { readonly records?: readonly DeviceRecord[] },
  busy: readonly DeviceRecord[] = [],
): string | null {
  const known: RoomFacts = {
    taken: takenBy(records ?? busy, (record) => busy.includes(record)),
    limits: noLimits,
    freeBytes: null,
    minFreeDiskBytes: 0,
    ...facts,
  };
  return noRoomFor(mine, bytes, known)?.reason ?? null;
}

test('An upload fits without limits, and when the free space is unknown', () => {
  assert.equal(answer(2 ** 40, {}), null);
  assert.equal(answer(2 ** 40, { minFreeDiskBytes: 1 }), null);
  assert.equal(answer(2 ** 40, { freeBytes: 0 }), null, 'the check of free disk space is off');
});

test("A peer's limit counts its own busy devices only", () => {
  const limits = { ...noLimits, maxBuildBytesPerPeer: 100 };
  const busy = [device(mine, 'a', 60), device(other, 'b', 1_000), device(mine, 'new', null)];
  assert.equal(answer(40, { limits }, busy), null);
  assert.equal(answer(41, { limits }, busy), 'quota_exceeded');
});

test('The total limit counts the busy devices of all peers', () => {
  const limits = { ...noLimits, maxBuildBytes: 100 };
  const busy = [device(mine, 'a', 20), device(other, 'b', 40)];
  assert.equal(answer(40, { limits }, busy), null);
  assert.equal(answer(41, { limits }, busy), 'quota_exceeded');
});

test('Idle devices count as free space, because they can be removed', () => {
  const busy = [device(mine, 'a', 60)];
  const records = [...busy, device(mine, 'idle', 500), device(other, 'idle', 500)];
  const limits = { maxBuildBytes: 100, maxBuildBytesPerPeer: 100 };
  assert.equal(answer(40, { limits, records }, busy), null);
  const disk = { records, freeBytes: 50, minFreeDiskBytes: 100 };
  assert.equal(answer(950, disk, busy), null);
  assert.equal(answer(951, disk, busy), 'disk_full');
});

test('The message for the user names the limit and no host path', () => {
  const limits = { ...noLimits, maxBuildBytesPerPeer: 2_500_000_000 };
  const facts = { taken: takenBy([], () => false), limits, freeBytes: null, minFreeDiskBytes: 0 };
  assert.match(noRoomFor(mine, 3e9, facts)?.detail ?? '', /of this dashboard are limited to 2\.5 GB/);
  const full = { ...facts, limits: noLimits, freeBytes: 0, minFreeDiskBytes: 1 };
  assert.doesNotMatch(noRoomFor(mine, 1, full)?.detail ?? '/', /\//);
});

test('A peer whose busy devices use the whole limit is refused, and other peers are not', () => {
  const limits = { ...noLimits, maxBuildBytes: 1_000 };
  const room = (busy: readonly DeviceRecord[], bytes: number): string | null =>
    answer(bytes, { limits }, busy);
  assert.equal(room([device(mine, 'a', 5_000)], 1), 'quota_exceeded');
  const greedy = [device(other, 'a', 5_000)];
  assert.equal(room(greedy, 500), null);
  assert.equal(room(greedy, 501), 'quota_exceeded');
  assert.equal(room([device(other, 'a', 100)], 900), null);
});
