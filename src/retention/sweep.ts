/**
 * Takes away the builds that nobody has used for a time, or that are too many for the disk.
 *
 * It looks, and then decides again under each device's lease: a build that began meanwhile keeps what it builds upon. One
 * device at a time, and one that cannot be removed does not save the others.
 */
import { isReceiverError, messageOf } from '../errors.js';
import type { Strange } from '../jobs/devices-on-disk.js';
import type { Log } from '../log.js';
import type { RemoteKey } from '../paths/index.js';
import { bytesOf, type DeviceBook, type DeviceRecord } from './device-book.js';
import { removeDevice, type RemovalDeps } from './remove-device.js';
import type { Item, Left, Removed, Report } from './report.js';

export interface SweepDeps extends RemovalDeps {
  readonly book: DeviceBook;
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

export type SweepResult = Pick<Report, 'removed' | 'left'>;

/** A lease that is not free at once is held by somebody who uses the device. */
export const patienceMs = 1_000;

/** Goes through `candidates` in their order. Never rejects for one of them; stops between two when it is aborted. */
export async function sweepDevices(
  candidates: readonly DeviceRecord[],
  order: SweepOrder,
  deps: SweepDeps,
): Promise<SweepResult> {
  const removed: Removed[] = [];
  const left: Left[] = [];
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
      deps.log.info({ dashboardId, device, bytes, reason: order.reason }, 'a device was removed');
    } catch (error) {
      left.push({ what: item, why: whyLeft(error) });
      if (isReceiverError(error, 'LOCK_TIMEOUT')) continue;
      deps.log.error({ dashboardId, device, error: messageOf(error) }, 'a device could not be removed');
    }
  }
  return { removed, left };
}

async function sweep(record: DeviceRecord, order: SweepOrder, deps: SweepDeps): Promise<boolean> {
  const { reason } = order;
  const isWanted = (): boolean => {
    const now = deps.book.look(record);
    return now !== undefined && !deps.isBusy(record) && order.isWanted(now);
  };
  return removeDevice(record, { reason, deadlineMs: patienceMs, isWanted }, deps);
}

export function itemOf({ dashboardId, device }: RemoteKey): Item {
  return { kind: 'device', dashboardId, device };
}

export function strangeLeft(strange: readonly Strange[]): Left[] {
  return strange.map(({ place, why }) => ({ what: { kind: 'strange', place }, why }));
}

/** Ours name no place of this machine; others are in the log. */
export function whyLeft(error: unknown): string {
  if (isReceiverError(error, 'LOCK_TIMEOUT')) return 'it is in use';
  return isReceiverError(error) ? error.message : 'it could not be removed; the log says why';
}
