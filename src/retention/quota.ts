/**
 * Decides which devices to remove when builds exceed a limit, and whether an announced upload can fit. Pure functions.
 *
 * The least recently used devices go first, as few as suffice, and none in use. Peers above an equal share of the
 * remaining space lose theirs first: otherwise one peer that builds a lot at once would evict everyone else's builds.
 */
import type { NoRoom } from '../bundles/store.js';
import type { RetentionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceRecord } from './device-usage.js';

/** In bytes; null for no limit. */
export interface BuildQuota {
  readonly maxBuildBytes: number | null;
  readonly maxBuildBytesPerPeer: number | null;
  /** By how much the volume's free space falls short; that many bytes of builds are removed. */
  readonly missingBytes: number;
}

/** The devices to remove, in that order. */
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

  /** Chooses devices until those chosen among these hold `bytes`. */
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

  /** Chooses first what peers hold beyond an equal share; if that is in use, then the rest. */
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

function sumOf(records: readonly DeviceRecord[]): number {
  return records.reduce((sum, record) => sum + bytesOf(record), 0);
}

/** Disk usage of the builds and of staged bundles, in bytes. */
export interface Taken {
  readonly all: number;
  /** Used by devices with a queued or running job, and by bundles. */
  readonly busy: number;
  readonly busyOf: ReadonlyMap<DashboardId, number>;
}

export interface RoomFacts {
  readonly taken: Taken;
  readonly limits: Pick<RetentionLimits, 'maxBuildBytes' | 'maxBuildBytesPerPeer'>;
  /** Null if unknown. */
  readonly freeBytes: number | null;
  readonly minFreeDiskBytes: number;
}

export function takenBy(
  records: readonly DeviceRecord[],
  isBusy: (record: DeviceRecord) => boolean,
  staged: ReadonlyMap<DashboardId, number> = new Map(),
): Taken {
  const busyOf = new Map(staged);
  let all = [...staged.values()].reduce((sum, bytes) => sum + bytes, 0);
  let busy = all;
  for (const record of records) {
    const bytes = bytesOf(record);
    all += bytes;
    if (!isBusy(record)) continue;
    busy += bytes;
    busyOf.set(record.dashboardId, (busyOf.get(record.dashboardId) ?? 0) + bytes);
  }
  return { all, busy, busyOf };
}

/**
 * Null if an announced upload of `bytes` fits, or will fit once unused builds are removed. Checked before the first byte:
 * a dashboard that sends 100 MB only to be refused has wasted minutes of its user's time.
 */
export function noRoomFor(dashboardId: DashboardId, bytes: number, facts: RoomFacts): NoRoom | null {
  const { maxBuildBytes, maxBuildBytesPerPeer } = facts.limits;
  const { all, busy, busyOf } = facts.taken;
  const own = (busyOf.get(dashboardId) ?? 0) + bytes;
  if (maxBuildBytesPerPeer !== null && own > maxBuildBytesPerPeer) {
    return exceeded('of this dashboard', maxBuildBytesPerPeer);
  }
  // A peer whose running builds use the whole limit must not keep out peers that need little.
  const peers = busyOf.size + (busyOf.has(dashboardId) ? 0 : 1);
  if (maxBuildBytes !== null && busy + bytes > maxBuildBytes && own > maxBuildBytes / peers) {
    return exceeded('of all dashboards', maxBuildBytes);
  }
  if (facts.freeBytes === null || facts.minFreeDiskBytes === 0) return null;
  if (facts.freeBytes + all - busy >= facts.minFreeDiskBytes + bytes) return null;
  const detail = 'the disk of the build server is full; ask its operator to free some space';
  return { reason: 'disk_full', detail };
}

function exceeded(whose: string, bytes: number): NoRoom {
  const limit = `the builds ${whose} are limited to ${(bytes / 1e9).toFixed(1)} GB`;
  const detail = `${limit}, and waiting or running builds leave no room for this one; try again when they finish`;
  return { reason: 'quota_exceeded', detail };
}
