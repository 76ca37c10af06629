/**
 * Removes devices' directories and reports what was removed and what had to stay: an operator who frees a disk must not
 * have to guess why a tree is still there. Candidates are checked again under each device's lease, so that a build that
 * began in the meantime keeps its files.
 */
import { rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { type PublishGuard, openTrash } from '../disk/remove.js';
import { isReceiverError, storageError } from '../errors.js';
import type { Strange } from '../jobs/devices-on-disk.js';
import type { Log } from '../log.js';
import type { RemoteKey, Layout, DashboardId } from '../paths/index.js';
import {
  bytesOf,
  type DeviceUsageLog,
  type DeviceUsageLogOptions,
  type DeviceRecord,
} from './device-usage.js';

export interface SweepDeps extends RemovalDeps {
  readonly usage: DeviceUsageLog;
  /** Whether the device has a queued or running job. */
  readonly isBusy: (key: RemoteKey) => boolean;
  readonly log: Log;
}

export interface SweepOrder {
  readonly reason: string;
  /** Asked again under the lease, with the record as it is then. */
  readonly isWanted: (record: DeviceRecord) => boolean;
  readonly dryRun: boolean;
  readonly signal: AbortSignal;
}

export type SweepResult = Pick<SweepReport, 'removed' | 'left'>;

/** How long to wait for a lease. One that is not free at once means that the device is in use. */
export const patienceMs = 1_000;

/** Sweeps `candidates` in order, and reports those that cannot be removed. */
export async function sweepDevices(
  candidates: readonly DeviceRecord[],
  order: SweepOrder,
  deps: SweepDeps,
): Promise<SweepResult> {
  const { dryRun, reason, signal } = order;
  return removeEach(candidates, itemOf, signal, {
    async remove(record) {
      if (deps.isBusy(record)) return 'the device has a queued or running job';
      const bytes = bytesOf(record);
      if (dryRun) return bytes;
      if (!(await sweepDevice(record, order, deps))) return null;
      const { dashboardId, device } = record;
      deps.log.info({ dashboardId, device, bytes, reason }, 'device removed');
      return bytes;
    },
    failed(error, { dashboardId, device }) {
      if (isReceiverError(error, 'LOCK_TIMEOUT') || isReceiverError(error, 'CANCELLED')) return;
      deps.log.error({ dashboardId, device, err: error }, 'device removal failed');
    },
  });
}

/**
 * Removes one by one: an abort takes effect between two, and a failure does not stop the others. `remove` returns the
 * bytes that it freed, why the item stays, or null for an item that needs no mention.
 */
export async function removeEach<T>(
  all: readonly T[],
  nameOf: (each: T) => StoredItem,
  signal: AbortSignal | undefined,
  act: {
    remove(each: T): Promise<number | string | null>;
    failed(error: unknown, each: T): void;
  },
): Promise<SweepResult> {
  const removed: Removed[] = [];
  const left: LeftInPlace[] = [];
  for (const each of all) {
    const item = nameOf(each);
    if (signal?.aborted === true) {
      left.push({ what: item, why: 'the build server is stopping' });
      continue;
    }
    try {
      const result = await act.remove(each);
      if (typeof result === 'number') removed.push({ item, bytes: result });
      else if (result !== null) left.push({ what: item, why: result });
    } catch (error) {
      left.push({ what: item, why: whyLeft(error) });
      act.failed(error, each);
    }
  }
  return { removed, left };
}

function sweepDevice(record: DeviceRecord, order: SweepOrder, deps: SweepDeps): Promise<boolean> {
  const isWanted = (): boolean => {
    const latest = deps.usage.reload(record);
    return latest !== undefined && !deps.isBusy(record) && order.isWanted(latest);
  };
  return removeDevice(record, { reason: order.reason, deadlineMs: patienceMs, isWanted }, deps);
}

export function itemOf({ dashboardId, device }: RemoteKey): StoredItem {
  return { kind: 'device', dashboardId, device };
}

export function strangeLeft(strange: readonly Strange[]): LeftInPlace[] {
  return strange.map(({ place, why }) => ({ what: { kind: 'strange', place }, why }));
}

/** The receiver's own messages hold no host path; the messages of other errors can, and only go to the log. */
function whyLeft(error: unknown): string {
  if (isReceiverError(error, 'LOCK_TIMEOUT')) return 'it is in use';
  if (isReceiverError(error, 'CANCELLED')) return 'the build server is stopping';
  return isReceiverError(error) ? error.message : 'the removal failed; see the log for the cause';
}

/** Runs the work under one device's lease. Throws `LOCK_TIMEOUT` when it is not free in time, and `CANCELLED`. */
export type UnderLease = <T>(
  key: RemoteKey,
  reason: string,
  work: (lease: PublishGuard) => Promise<T>,
  deadlineMs?: number,
) => Promise<T>;

export interface RemovalDeps {
  readonly layout: Layout;
  readonly usage: Pick<DeviceUsageLog, 'forget'>;
  readonly underLease: UnderLease;
  /** See {@link DeviceUsageLogOptions.forgetLock}. */
  readonly forgetLock?: DeviceUsageLogOptions['forgetLock'];
  /** On abort, files already moved to the trash stay there until the next start empties it. */
  readonly signal?: AbortSignal | undefined;
}

export interface DeviceRemoval {
  /** Shown to jobs that wait for the device, and logged. */
  readonly reason: string;
  readonly deadlineMs?: number;
  /** Called under the lease; false cancels the removal. */
  readonly isWanted?: () => boolean;
}

/**
 * Removes a device's directory, or whatever file or link has its name; links are not followed. False when `isWanted`
 * declined or nothing was there. Throws `LOCK_TIMEOUT`, `CANCELLED`, `TRAVERSAL` if the peer's directory is a link, and
 * system errors.
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
  if (isGone) await deps.forgetLock?.(key);
  return isGone;
}

/**
 * Every removal of a device's files goes through here. `work` moves them to the trash under the device's lease; moves
 * fail once the lease is lost. They are deleted after its release, when the next owner can already be at work, so half a
 * directory never remains under its name.
 */
export async function removeFromDevice(
  key: RemoteKey,
  { reason, deadlineMs }: Pick<DeviceRemoval, 'reason' | 'deadlineMs'>,
  { layout, underLease, signal }: Pick<RemovalDeps, 'layout' | 'underLease' | 'signal'>,
  work: (move: (path: string) => Promise<boolean>) => Promise<void>,
): Promise<void> {
  const trash = openTrash(layout.trashDir);
  try {
    try {
      await underLease(key, reason, (lease) => work((path) => trash.move(path, lease)), deadlineMs);
    } finally {
      // Also after a failure, because nothing else empties this trash while the process lives.
      await trash.empty(signal);
    }
  } catch (error) {
    throw signal?.aborted === true
      ? error
      : storageError('files of a device cannot be removed', error, { ...key });
  }
}

export type StoredItem =
  /** The directory of one device of a peer. */
  | { readonly kind: 'device'; readonly dashboardId: DashboardId; readonly device: string }
  /** The packed result of a job, with its record and log. */
  | { readonly kind: 'result'; readonly jobId: string }
  /** An installed release of ESPHome. */
  | { readonly kind: 'version'; readonly version: string }
  /** A directory of compilers and libraries that devices share. */
  | { readonly kind: 'toolchain'; readonly toolchain: string };

export interface Removed {
  readonly item: StoredItem;
  /** Disk usage; 0 if never measured. */
  readonly bytes: number;
}

export interface LeftInPlace {
  /** The item, or the path of an unrecognized entry relative to the builds directory. */
  readonly what: StoredItem | { readonly kind: 'strange'; readonly place: string };
  /** For people; holds no host path. */
  readonly why: string;
}

export interface SweepReport {
  readonly dryRun: boolean;
  readonly removed: readonly Removed[];
  readonly left: readonly LeftInPlace[];
  readonly freedBytes: number;
}

export function joinResults(dryRun: boolean, parts: readonly SweepResult[]): SweepReport {
  const removed = parts.flatMap((part) => part.removed);
  const left = parts.flatMap((part) => part.left);
  return Object.freeze({ dryRun, removed, left, freedBytes: bytesOfAll(removed) });
}

export function bytesOfAll(removed: readonly Removed[]): number {
  return removed.reduce((sum, { bytes }) => sum + bytes, 0);
}
