/**
 * Whether there can be room for an upload that a peer announces. Asked before its first byte is taken: a dashboard that
 * sends 100 MB only to hear that there is no room has wasted minutes of its user's time.
 */
import type { DashboardId } from '../paths/index.js';
import type { DeviceRecord } from './device-book.js';
import type { RetentionLimits } from './limits.js';
import { sumOf } from './quota.js';

/** In the form in which the dashboard shows it: a word, and what it means here. */
export interface NoRoom {
  readonly reason: 'quota_exceeded' | 'disk_full';
  readonly detail: string;
}

export interface RoomFacts {
  readonly records: readonly DeviceRecord[];
  readonly isBusy: (record: DeviceRecord) => boolean;
  readonly limits: Pick<RetentionLimits, 'maxBuildBytes' | 'maxBuildBytesPerPeer'>;
  /** Null where that is not known. */
  readonly freeBytes: number | null;
  /** What must stay free. */
  readonly minFreeDiskBytes: number;
}

/** Null when there is room, or there is once unused builds have gone. `bytes` is what the peer announces. */
export function noRoomFor(dashboardId: DashboardId, bytes: number, facts: RoomFacts): NoRoom | null {
  const { maxBuildBytes, maxBuildBytesPerPeer } = facts.limits;
  const busy = facts.records.filter((record) => facts.isBusy(record));
  const own = busy.filter((record) => record.dashboardId === dashboardId);
  if (maxBuildBytesPerPeer !== null && sumOf(own) + bytes > maxBuildBytesPerPeer) {
    return exceeded('of this dashboard', maxBuildBytesPerPeer);
  }
  // One that takes all of it with builds under way must not keep out those that want little.
  const peers = new Set([dashboardId, ...busy.map((record) => record.dashboardId)]).size;
  const isTooMuch = maxBuildBytes !== null && sumOf(busy) + bytes > maxBuildBytes;
  if (isTooMuch && sumOf(own) + bytes > maxBuildBytes / peers) {
    return exceeded('of all dashboards', maxBuildBytes);
  }
  if (facts.freeBytes === null || facts.minFreeDiskBytes === 0) return null;
  const unused = sumOf(facts.records) - sumOf(busy);
  if (facts.freeBytes + unused >= facts.minFreeDiskBytes + bytes) return null;
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
