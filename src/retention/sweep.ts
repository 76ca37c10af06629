/**
 * Takes away the builds that nobody has used for a time, or that are too many for the disk.
 *
 * It looks, and then decides again under each device's lease: a build that began meanwhile keeps what it builds upon. One
 * device at a time, and one that cannot be removed does not save the others.
 */
import { rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { type Fence, openTrash } from '../disk/remove.js';
import { isReceiverError } from '../errors.js';
import type { Strange } from '../jobs/devices-on-disk.js';
import type { Log } from '../log.js';
import type { RemoteKey, Layout, DashboardId } from '../paths/index.js';
import { bytesOf, type DeviceUsageLog, type DeviceRecord } from './device-usage.js';

export interface SweepDeps extends RemovalDeps {
  readonly usage: DeviceUsageLog;
  /** Whether a job of the device waits or runs. */
  readonly isBusy: (key: RemoteKey) => boolean;
  readonly log: Log;
}

export interface SweepOrder {
  readonly reason: string;
  /** Whether a device is to go, as it is known at the moment of the call. */
  readonly isWanted: (record: DeviceRecord) => boolean;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
}

export type SweepResult = Pick<SweepReport, 'removed' | 'left'>;

/** A lease that is not free at once is held by somebody who uses the device. */
export const patienceMs = 1_000;

/** Goes through `candidates` in their order. Never rejects for one of them; stops between two when it is aborted. */
export async function sweepDevices(
  candidates: readonly DeviceRecord[],
  order: SweepOrder,
  deps: SweepDeps,
): Promise<SweepResult> {
  const removed: Removed[] = [];
  const left: LeftInPlace[] = [];
  for (const record of candidates) {
    if (order.signal.aborted) break;
    const item = itemOf(record);
    if (deps.isBusy(record)) {
      left.push({ what: item, why: 'a job of it is under way' });
      continue;
    }
    if (order.dryRun) {
      removed.push({ item, bytes: bytesOf(record) });
      continue;
    }
    const { dashboardId, device } = record;
    const bytes = bytesOf(record);
    try {
      if (!(await sweep(record, order, deps))) continue;
      removed.push({ item, bytes });
      deps.log.info({ dashboardId, device, bytes, reason: order.reason }, 'device removed');
    } catch (error) {
      left.push({ what: item, why: whyLeft(error) });
      if (isReceiverError(error, 'LOCK_TIMEOUT') || isReceiverError(error, 'CANCELLED')) continue;
      deps.log.error({ dashboardId, device, err: error }, 'device removal failed');
    }
  }
  return { removed, left };
}

async function sweep(record: DeviceRecord, order: SweepOrder, deps: SweepDeps): Promise<boolean> {
  const { reason } = order;
  const isWanted = (): boolean => {
    const now = deps.usage.look(record);
    return now !== undefined && !deps.isBusy(record) && order.isWanted(now);
  };
  return removeDevice(record, { reason, deadlineMs: patienceMs, isWanted }, deps);
}

export function itemOf({ dashboardId, device }: RemoteKey): StoredItem {
  return { kind: 'device', dashboardId, device };
}

export function strangeLeft(strange: readonly Strange[]): LeftInPlace[] {
  return strange.map(({ place, why }) => ({ what: { kind: 'strange', place }, why }));
}

/** Ours name no place of this machine; others are in the log. */
export function whyLeft(error: unknown): string {
  if (isReceiverError(error, 'LOCK_TIMEOUT')) return 'it is in use';
  if (isReceiverError(error, 'CANCELLED')) return 'the build server is stopping';
  return isReceiverError(error) ? error.message : 'it could not be removed; the log says why';
}

/** Runs the work as the owner of one device's directory. Throws `LOCK_TIMEOUT` when it is not free in time, `CANCELLED`. */
export type UnderLease = <T>(
  key: RemoteKey,
  reason: string,
  work: (lease: Fence) => Promise<T>,
  deadlineMs?: number,
) => Promise<T>;

export interface RemovalDeps {
  readonly layout: Layout;
  readonly usage: Pick<DeviceUsageLog, 'forget'>;
  readonly underLease: UnderLease;
  /** When it aborts, what is out of sight already stays in the trash, and the next start empties that. */
  readonly signal?: AbortSignal | undefined;
}

export interface DeviceRemoval {
  /** For those who wait for the device, and for the log. */
  readonly reason: string;
  /** How long to wait for a build to end, in milliseconds. */
  readonly deadlineMs?: number;
  /** Asked under the lease, when nobody can use the device any more: whether it is still to go. */
  readonly isWanted?: () => boolean;
}

/**
 * Takes one device's directory away, whole. False when it was not wanted any more, or nothing was there. What lies at the
 * device's place goes whatever it is; a link is taken away itself. Throws `LOCK_TIMEOUT`, `CANCELLED`, `TRAVERSAL` for a
 * peer's directory that is a link, and system errors.
 */
export async function removeDevice(
  key: RemoteKey,
  removal: DeviceRemoval,
  deps: RemovalDeps,
): Promise<boolean> {
  const { layout, usage } = deps;
  const subtree = layout.subtree(key);
  let isGone = false;
  await removeFromDevice(key, removal, deps, async (move) => {
    if (removal.isWanted?.() === false) return;
    await assertUnlinked(layout.buildsDir, dirname(subtree));
    isGone = await move(subtree);
    await usage.forget(key);
    await rmdir(dirname(subtree)).catch(() => {});
  });
  return isGone;
}

/**
 * The one way in which anything of a device is removed: `work` has it moved out of sight under the device's lease, each
 * move refused once the lease is lost, and it is deleted when the next owner may be at work already. Half a directory
 * never stays under its name.
 */
export async function removeFromDevice(
  key: RemoteKey,
  { reason, deadlineMs }: Pick<DeviceRemoval, 'reason' | 'deadlineMs'>,
  { layout, underLease, signal }: Pick<RemovalDeps, 'layout' | 'underLease' | 'signal'>,
  work: (move: (path: string) => Promise<boolean>) => Promise<void>,
): Promise<void> {
  const trash = openTrash(layout.trashDir);
  try {
    await underLease(key, reason, (lease) => work((path) => trash.move(path, lease)), deadlineMs);
  } finally {
    // Also what came there before something failed: nobody else looks for it while this process lives.
    await trash.empty(signal);
  }
}

/**
 * What was removed, or would be, and what had to stay: an operator who frees a disk must not have to guess why a tree is
 * still there.
 */

/** What can go. */
export type StoredItem =
  /** All that was built and learnt for one device of a peer. */
  | { readonly kind: 'device'; readonly dashboardId: DashboardId; readonly device: string }
  /** The packed result of a job, with its record and log. */
  | { readonly kind: 'result'; readonly jobId: string }
  /** An installed release of ESPHome. */
  | { readonly kind: 'version'; readonly version: string }
  /** Compilers and libraries that devices share. */
  | { readonly kind: 'toolchain'; readonly toolchain: string };

export interface Removed {
  readonly item: StoredItem;
  /** Of the volume; 0 where nobody has measured it. */
  readonly bytes: number;
}

export interface LeftInPlace {
  /** The item, or the place of something that is none, relative to the builds directory. */
  readonly what: StoredItem | { readonly kind: 'strange'; readonly place: string };
  /** For people; names no place of this machine. */
  readonly why: string;
}

export interface SweepReport {
  /** Whether nothing was touched. */
  readonly dryRun: boolean;
  readonly removed: readonly Removed[];
  readonly left: readonly LeftInPlace[];
  /** The sum over `removed`. */
  readonly freedBytes: number;
}

/** One report of several. */
export function joinResults(
  dryRun: boolean,
  parts: readonly Pick<SweepReport, 'removed' | 'left'>[],
): SweepReport {
  const removed = parts.flatMap((part) => part.removed);
  const left = parts.flatMap((part) => part.left);
  return Object.freeze({
    dryRun,
    removed,
    left,
    freedBytes: bytesOfAll(removed),
  });
}

export function bytesOfAll(removed: readonly Removed[]): number {
  return removed.reduce((sum, { bytes }) => sum + bytes, 0);
}
