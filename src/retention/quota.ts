/**
 * Which devices go when builds take more room than they may: those that were not used for the longest time, as few as
 * will do, and none that is in use. First of the peers that take more than an equal share of what may stay: else one that
 * builds a great deal at once would cost all others what they have. Pure: it decides, and touches nothing.
 */
import type { DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceRecord } from './device-book.js';

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
export function sumOf(records: readonly DeviceRecord[]): number {
  return records.reduce((sum, record) => sum + bytesOf(record), 0);
}
