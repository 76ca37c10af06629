/**
 * Which devices go when builds take more room than they may: those that were not used for the longest time, as few as
 * will do, and none that is in use. First of the peers that take more than an equal share of what may stay: else one that
 * builds a great deal at once would cost all others what they have. Pure: it decides, and touches nothing.
 */
import type { RetentionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceRecord } from './device-usage.js';

/** All in bytes of the volume; null for no limit. */
export interface BuildQuota {
  /** Of the builds of all peers together. */
  readonly maxBuildBytes: number | null;
  readonly maxBuildBytesPerPeer: number | null;
  /** What should be free besides; missing bytes are taken from the builds. */
  readonly missingBytes: number;
}

/** In the order in which they go. */
export function overQuota(
  records: readonly DeviceRecord[],
  quota: BuildQuota,
  isBusy: (record: DeviceRecord) => boolean,
): readonly DeviceRecord[] {
  const chosen = new Set<DeviceRecord>();
  const oldestFirst = records.toSorted((a, b) => a.usedAt - b.usedAt);

  function canGo(record: DeviceRecord): boolean {
    return !chosen.has(record) && bytesOf(record) > 0 && !isBusy(record);
  }

  /** Chooses until the chosen ones among these hold as much. */
  function free(bytes: number, among: readonly DeviceRecord[]): void {
    let missing = bytes;
    for (const record of among) if (chosen.has(record)) missing -= bytesOf(record);
    for (const record of among) {
      if (missing <= 0) return;
      if (!canGo(record)) continue;
      chosen.add(record);
      missing -= bytesOf(record);
    }
  }

  /** The same among all: first what peers have beyond an equal share, then, where that is in use, the rest. */
  function freeFairly(bytes: number): void {
    if (bytes <= 0) return;
    const kept = oldestFirst.filter((record) => bytesOf(record) > 0 && !chosen.has(record));
    const has = new Map([...byPeer(kept)].map(([id, own]) => [id, sumOf(own)]));
    const share = Math.max(0, sumOf(oldestFirst) - bytes) / has.size;
    const beyond: DeviceRecord[] = [];
    for (const record of kept) {
      const own = has.get(record.dashboardId) ?? 0;
      if (own <= share || !canGo(record)) continue;
      beyond.push(record);
      has.set(record.dashboardId, own - bytesOf(record));
    }
    free(bytes, [...chosen, ...beyond, ...kept]);
  }

  if (quota.maxBuildBytesPerPeer !== null) {
    for (const own of byPeer(oldestFirst).values()) free(sumOf(own) - quota.maxBuildBytesPerPeer, own);
  }
  if (quota.maxBuildBytes !== null) freeFairly(sumOf(oldestFirst) - quota.maxBuildBytes);
  freeFairly(quota.missingBytes);
  return oldestFirst.filter((record) => chosen.has(record));
}

function byPeer(records: readonly DeviceRecord[]): Map<DashboardId, DeviceRecord[]> {
  const peers = new Map<DashboardId, DeviceRecord[]>();
  for (const record of records) {
    const own = peers.get(record.dashboardId);
    if (own) own.push(record);
    else peers.set(record.dashboardId, [record]);
  }
  return peers;
}

/** In bytes of the volume. */
function sumOf(records: readonly DeviceRecord[]): number {
  return records.reduce((sum, record) => sum + bytesOf(record), 0);
}

/**
 * Whether there can be room for an upload that a peer announces. Asked before its first byte is taken: a dashboard that
 * sends 100 MB only to hear that there is no room has wasted minutes of its user's time.
 */

/** In the form in which the dashboard shows it: a word, and what it means here. */
export interface NoRoom {
  readonly reason: 'quota_exceeded' | 'disk_full';
  readonly detail: string;
}

/** Who takes how much of the disk at one moment. In bytes of the volume. */
export interface Taken {
  readonly all: number;
  /** By devices with a job that waits or runs. */
  readonly busy: number;
  /** The same, for each peer that has such a device. */
  readonly busyOf: ReadonlyMap<DashboardId, number>;
}

export interface RoomFacts {
  readonly taken: Taken;
  readonly limits: Pick<RetentionLimits, 'maxBuildBytes' | 'maxBuildBytesPerPeer'>;
  /** Null where that is not known. */
  readonly freeBytes: number | null;
  /** What must stay free. */
  readonly minFreeDiskBytes: number;
}

export function takenBy(records: readonly DeviceRecord[], isBusy: (record: DeviceRecord) => boolean): Taken {
  let [all, busy] = [0, 0];
  const busyOf = new Map<DashboardId, number>();
  for (const record of records) {
    const bytes = bytesOf(record);
    all += bytes;
    if (!isBusy(record)) continue;
    busy += bytes;
    busyOf.set(record.dashboardId, (busyOf.get(record.dashboardId) ?? 0) + bytes);
  }
  return { all, busy, busyOf };
}

/** Null when there is room, or there is once unused builds have gone. `bytes` is what the peer announces. */
export function noRoomFor(dashboardId: DashboardId, bytes: number, facts: RoomFacts): NoRoom | null {
  const { maxBuildBytes, maxBuildBytesPerPeer } = facts.limits;
  const { all, busy, busyOf } = facts.taken;
  const own = (busyOf.get(dashboardId) ?? 0) + bytes;
  if (maxBuildBytesPerPeer !== null && own > maxBuildBytesPerPeer) {
    return exceeded('of this dashboard', maxBuildBytesPerPeer);
  }
  // One that takes all of it with builds under way must not keep out those that want little.
  const peers = busyOf.size + (busyOf.has(dashboardId) ? 0 : 1);
  if (maxBuildBytes !== null && busy + bytes > maxBuildBytes && own > maxBuildBytes / peers) {
    return exceeded('of all dashboards', maxBuildBytes);
  }
  if (facts.freeBytes === null || facts.minFreeDiskBytes === 0) return null;
  if (facts.freeBytes + all - busy >= facts.minFreeDiskBytes + bytes) return null;
  return {
    reason: 'disk_full',
    detail: 'the disk of the build server is full; ask its operator to free some',
  };
}

function exceeded(whose: string, bytes: number): NoRoom {
  const most = `${(bytes / 1e9).toFixed(1)} GB`;
  const detail = `the builds ${whose} may take ${most}, and those under way take them; try again when they have ended`;
  return { reason: 'quota_exceeded', detail };
}
