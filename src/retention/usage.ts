/**
 * Reports disk usage by peer, from figures known without a walk: devices are measured after each build, results when
 * they are packed, tools during a sweep.
 */
import type { DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceRecord, type Sizes } from './device-usage.js';
import type { EvictableEntry } from './evictable.js';

/** Disk usage in bytes; results count by their length. */
export interface UsageReport {
  readonly builds: number;
  readonly results: number;
  /** Bundles that arrive, wait or are built. */
  readonly staged: number;
  readonly tools: number;
  /** Free space for this account; null if the system does not report it. */
  readonly free: number | null;
  /** Largest first, as are the devices of each peer. */
  readonly peers: readonly PeerUsage[];
  /** Installed releases and toolchains, with the sizes that the last sweep measured, even if before a restart. */
  readonly toolEntries: readonly EvictableEntry[];
}

export interface PeerUsage {
  readonly dashboardId: DashboardId;
  readonly builds: number;
  readonly results: number;
  readonly staged: number;
  readonly devices: readonly DeviceUsage[];
}

export interface DeviceUsage {
  readonly device: string;
  readonly bytes: number;
  /** Null until measured. */
  readonly sizes: Sizes | null;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
}

export function usageOf(
  records: readonly DeviceRecord[],
  resultBytes: ReadonlyMap<DashboardId, number>,
  stagedBytes: ReadonlyMap<DashboardId, number>,
  toolEntries: readonly EvictableEntry[],
  free: number | null,
): UsageReport {
  const peers = new Map<DashboardId, { results: number; staged: number; devices: DeviceUsage[] }>();
  const of = (id: DashboardId): { results: number; staged: number; devices: DeviceUsage[] } => {
    const peer = peers.get(id) ?? { results: 0, staged: 0, devices: [] };
    peers.set(id, peer);
    return peer;
  };
  for (const record of records) {
    const { device, sizes, usedAt } = record;
    of(record.dashboardId).devices.push({ device, bytes: bytesOf(record), sizes, usedAt });
  }
  for (const [dashboardId, bytes] of resultBytes) of(dashboardId).results = bytes;
  for (const [dashboardId, bytes] of stagedBytes) of(dashboardId).staged = bytes;
  const listed = [...peers].map(([dashboardId, { results, staged, devices }]) => ({
    ...{ dashboardId, results, staged, builds: sum(devices, ({ bytes }) => bytes) },
    devices: devices.toSorted((a, b) => b.bytes - a.bytes),
  }));
  return Object.freeze({
    builds: sum(listed, ({ builds }) => builds),
    results: sum(listed, ({ results }) => results),
    staged: sum(listed, ({ staged }) => staged),
    tools: sum(toolEntries, ({ bytes }) => bytes),
    ...{ free, toolEntries },
    peers: listed.toSorted((a, b) => totalOf(b) - totalOf(a)),
  });
}

function totalOf({ builds, results, staged }: Omit<PeerUsage, 'devices'>): number {
  return builds + results + staged;
}

function sum<T>(list: readonly T[], of: (each: T) => number): number {
  return list.reduce((total, each) => total + of(each), 0);
}
