/**
 * Whether there can be room for an upload that a peer announces. Asked before its first byte is taken: a dashboard that
 * sends 100 MB only to hear that there is no room has wasted minutes of its user's time.
 */
import type { DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceRecord } from './device-book.js';
import type { RetentionLimits } from './limits.js';

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
