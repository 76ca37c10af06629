/** Whether an upload can have room, at the byte where that changes. */
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

/** What the receiver says to `mine`; the devices of `busy` are in use. */
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

test('Without limits, and where the free room is not known, there is room', () => {
  assert.equal(answer(2 ** 40, {}), null);
  assert.equal(answer(2 ** 40, { minFreeDiskBytes: 1 }), null);
  assert.equal(answer(2 ** 40, { freeBytes: 0 }), null, 'the watch over the disk is off');
});

test("A peer's limit counts what is under way for it, and nothing of others", () => {
  const limits = { ...noLimits, maxBuildBytesPerPeer: 100 };
  const busy = [device(mine, 'a', 60), device(other, 'b', 1_000), device(mine, 'new', null)];
  assert.equal(answer(40, { limits }, busy), null);
  assert.equal(answer(41, { limits }, busy), 'quota_exceeded');
});

test('The limit of all counts what is under way for anybody', () => {
  const limits = { ...noLimits, maxBuildBytes: 100 };
  const busy = [device(mine, 'a', 20), device(other, 'b', 40)];
  assert.equal(answer(40, { limits }, busy), null);
  assert.equal(answer(41, { limits }, busy), 'quota_exceeded');
});

test('What is not in use counts as room, for it goes when it must', () => {
  const busy = [device(mine, 'a', 60)];
  const records = [...busy, device(mine, 'idle', 500), device(other, 'idle', 500)];
  const limits = { maxBuildBytes: 100, maxBuildBytesPerPeer: 100 };
  assert.equal(answer(40, { limits, records }, busy), null);
  const disk = { records, freeBytes: 50, minFreeDiskBytes: 100 };
  assert.equal(answer(950, disk, busy), null);
  assert.equal(answer(951, disk, busy), 'disk_full');
});

test('The words for the user name the limit, and no place of this machine', () => {
  const limits = { ...noLimits, maxBuildBytesPerPeer: 2_500_000_000 };
  const facts = { taken: takenBy([], () => false), limits, freeBytes: null, minFreeDiskBytes: 0 };
  assert.match(noRoomFor(mine, 3e9, facts)?.detail ?? '', /of this dashboard may take 2\.5 GB/);
  const full = { ...facts, limits: noLimits, freeBytes: 0, minFreeDiskBytes: 1 };
  assert.doesNotMatch(noRoomFor(mine, 1, full)?.detail ?? '/', /\//);
});

test('Who takes all the room with builds under way is refused more of it, and keeps nobody else out', () => {
  const limits = { ...noLimits, maxBuildBytes: 1_000 };
  const room = (busy: readonly DeviceRecord[], bytes: number): string | null =>
    answer(bytes, { limits }, busy);
  assert.equal(room([device(mine, 'a', 5_000)], 1), 'quota_exceeded');
  const greedy = [device(other, 'a', 5_000)];
  assert.equal(room(greedy, 500), null);
  assert.equal(room(greedy, 501), 'quota_exceeded');
  assert.equal(room([device(other, 'a', 100)], 900), null);
});
