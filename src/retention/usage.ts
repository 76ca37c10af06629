/**
 * Who takes how much of the disk, from what is known without a walk: devices are measured when a build of theirs ends,
 * results when they are packed, tools when a sweep looks at them.
 */
import type { DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceRecord, type Sizes } from './device-usage.js';
import type { EvictableEntry } from './evictable.js';

/** All in bytes of the volume; results as long as they are. */
export interface UsageReport {
  readonly builds: number;
  readonly results: number;
  readonly tools: number;
  /** Free for this account; null where the system does not say. */
  readonly free: number | null;
  /** The largest first, as the devices of each. */
  readonly peers: readonly PeerUsage[];
  /** Installed releases and toolchains, as large as the last sweep has found them, or one before a restart. */
  readonly toolEntries: readonly EvictableEntry[];
}

export interface PeerUsage {
  readonly dashboardId: DashboardId;
  readonly builds: number;
  readonly results: number;
  readonly devices: readonly DeviceUsage[];
}

export interface DeviceUsage {
  readonly device: string;
  readonly bytes: number;
  /** Null as long as nobody has measured it. */
  readonly sizes: Sizes | null;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
}

export function usageOf(
  records: readonly DeviceRecord[],
  resultBytes: ReadonlyMap<DashboardId, number>,
  toolEntries: readonly EvictableEntry[],
  free: number | null,
): UsageReport {
  const peers = new Map<DashboardId, { results: number; devices: DeviceUsage[] }>();
  const of = (id: DashboardId): { results: number; devices: DeviceUsage[] } => {
    const peer = peers.get(id) ?? { results: 0, devices: [] };
    peers.set(id, peer);
    return peer;
  };
  for (const record of records) {
    const { device, sizes, usedAt } = record;
    of(record.dashboardId).devices.push({ device, bytes: bytesOf(record), sizes, usedAt });
  }
  for (const [dashboardId, bytes] of resultBytes) of(dashboardId).results = bytes;
  const listed = [...peers].map(([dashboardId, { results, devices }]) => ({
    ...{ dashboardId, results, builds: sum(devices, ({ bytes }) => bytes) },
    devices: devices.toSorted((a, b) => b.bytes - a.bytes),
  }));
  return Object.freeze({
    builds: sum(listed, ({ builds }) => builds),
    results: sum(listed, ({ results }) => results),
    tools: sum(toolEntries, ({ bytes }) => bytes),
    ...{ free, toolEntries },
    peers: listed.toSorted((a, b) => b.builds + b.results - (a.builds + a.results)),
  });
}

function sum<T>(list: readonly T[], of: (each: T) => number): number {
  return list.reduce((total, each) => total + of(each), 0);
}
