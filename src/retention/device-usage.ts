/**
 * Tracks when each device was last used and how much disk it takes: in memory for queries, on disk for the next start
 * and for other receivers on the same directories. As in `disk/use-stamps`, an unknown use never counts as an old one.
 */
import { type Clock, watchWallClock } from '../async/clock.js';
import { createKeyedQueue, createSerialQueue } from '../async/calls.js';
import { isThere } from '../disk/open-regular.js';
import { canBeUse, precisionMs } from '../disk/use-stamps.js';
import { devicesOnDisk, type Strange } from '../jobs/devices-on-disk.js';
import type { Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import {
  readRecord,
  readRecords,
  removeRecord,
  writeRecord,
  type DeviceRecord,
  sizesOf,
} from './device-record.js';

export type { DeviceRecord, Sizes } from './device-record.js';

export type DeviceUsageLog = Awaited<ReturnType<typeof openDeviceUsage>>;

export interface DeviceUsageLogOptions {
  readonly layout: Pick<Layout, 'buildsDir' | 'devicesDir' | 'subtree'>;
  readonly clock: Pick<Clock, 'wall' | 'steady'>;
  /** Removes the lock of a device that is gone. Never rejects. Default: it stays. */
  readonly forgetLock?: ((key: RemoteKey) => Promise<void>) | undefined;
  readonly log: Log;
}

/** Reads the existing records. Throws system errors. */
export async function openDeviceUsage(options: DeviceUsageLogOptions) {
  const { layout, clock, log, forgetLock = async () => {} } = options;
  const now = clock.wall;
  const { buildsDir, devicesDir } = layout;
  const jumps = watchWallClock(clock);
  const records = new Map<string, DeviceRecord>();
  /** Last uses as recorded on disk. */
  const saved = new Map<string, number>();
  const writing = createKeyedQueue();
  /** Rewrites of all records after a clock jump. */
  const renewing = createSerialQueue();

  const nameOf = (key: RemoteKey): string => layout.subtree(key);

  /** Queues a write of the device's record, as it is when the write begins. */
  function save(key: RemoteKey): Promise<void> {
    return writing.run(nameOf(key), () => write(key));
  }

  async function write(key: RemoteKey): Promise<void> {
    const record = records.get(nameOf(key));
    try {
      if (record === undefined) return await removeRecord(devicesDir, key);
      const found = readRecord(devicesDir, key);
      const merged = put(newest(corrected(record), found && corrected(found)));
      await writeRecord(devicesDir, merged);
      saved.set(nameOf(key), merged.usedAt);
    } catch (error) {
      log.warn({ ...key, err: error }, 'device use not recorded');
    }
  }

  function put(record: DeviceRecord): DeviceRecord {
    records.set(nameOf(record), record);
    return record;
  }

  function known(key: RemoteKey): DeviceRecord {
    const { dashboardId, device } = key;
    return records.get(nameOf(key)) ?? { dashboardId, device, usedAt: now(), sizes: null, measuredAt: 0 };
  }

  /** Replaces an impossible time of use by now, and marks a measurement from the future as due. */
  function corrected(record: DeviceRecord): DeviceRecord {
    const { usedAt, measuredAt } = record;
    const isUseRight = canBeUse(usedAt, now());
    const isMeasuredRight = measuredAt <= now() + precisionMs;
    if (isUseRight && isMeasuredRight) return record;
    return { ...record, usedAt: isUseRight ? usedAt : now(), measuredAt: isMeasuredRight ? measuredAt : 0 };
  }

  /** Shifts all last uses by a forward jump of the wall clock, so that their ages stay true. */
  function applyClockJump(): void {
    const ms = jumps.taken();
    if (ms === 0) return;
    log.info({ ms }, 'wall clock jumped forward, shifted last-used times');
    const all = usage.list();
    for (const record of all) put({ ...record, usedAt: Math.min(record.usedAt + ms, now()) });
    void renewing.run(async () => {
      for (const record of all) await save(record);
    });
  }

  function mergeRecord(found: DeviceRecord): DeviceRecord {
    const right = corrected(found);
    const own = records.get(nameOf(found));
    const record = put(own ? newest(corrected(own), right) : right);
    if (right !== found) void save(found);
    return record;
  }

  async function forgetGone(key: RemoteKey): Promise<void> {
    // First: without a record nothing leads to the lock.
    await forgetLock(key);
    await usage.forget(key);
  }

  const usage = {
    list: (): readonly DeviceRecord[] => [...records.values()],
    get: (key: RemoteKey): DeviceRecord | undefined => records.get(nameOf(key)),
    /** Marks a device as used now. The record follows soon, precise to a minute. */
    touch(key: RemoteKey): void {
      applyClockJump();
      const record = put({ ...known(key), usedAt: now() });
      const last = saved.get(nameOf(key));
      if (last !== undefined && Math.abs(record.usedAt - last) < precisionMs) return;
      saved.set(nameOf(key), record.usedAt);
      void save(key);
    },
    /** Walks a device's directory and records its size, unless the signal aborts. Never rejects. */
    async measure(key: RemoteKey, signal?: AbortSignal): Promise<void> {
      try {
        const wasKnown = records.has(nameOf(key));
        const sizes = await sizesOf(layout.subtree(key), signal);
        if (sizes === null) return await forgetGone(key);
        // The device was removed during the walk.
        if (wasKnown && !records.has(nameOf(key))) return;
        const record = corrected(known(key));
        // Newer than the previous one even if the clock was set back a little.
        put({ ...record, sizes, measuredAt: Math.max(now(), record.measuredAt + 1) });
        await save(key);
      } catch (error) {
        if (signal?.aborted === true) return;
        log.warn({ ...key, err: error }, 'device measurement failed');
      }
    },
    /** Merges the record on disk, which another receiver may have written. Call it under the device's lease. */
    reload(key: RemoteKey): DeviceRecord | undefined {
      applyClockJump();
      const found = readRecord(devicesDir, key);
      if (found !== null) return mergeRecord(found);
      const own = records.get(nameOf(key));
      return own && put(corrected(own));
    },
    /** Drops the record of a device whose directory is gone. Never rejects. */
    async forget(key: RemoteKey): Promise<void> {
      records.delete(nameOf(key));
      saved.delete(nameOf(key));
      await save(key);
    },
    /** Adds devices found on disk, forgets those that are gone, returns entries that are not devices. Throws system errors. */
    async refresh(): Promise<readonly Strange[]> {
      applyClockJump();
      const { keys, strange } = await devicesOnDisk(buildsDir);
      const here = new Set(keys.map(nameOf));
      for (const record of await readRecords(devicesDir)) {
        if (here.has(nameOf(record))) saved.set(nameOf(record), mergeRecord(record).usedAt);
        else if (!(await isThere(layout.subtree(record)))) await forgetGone(record);
      }
      for (const record of [...records.values()]) {
        if (!here.has(nameOf(record)) && !(await isThere(layout.subtree(record)))) await forgetGone(record);
      }
      for (const key of keys) {
        const own = records.get(nameOf(key));
        put(own ? corrected(own) : known(key));
        if (own === undefined) await save(key);
      }
      return strange;
    },
    /** Resolves when all records are written. */
    async settled(): Promise<void> {
      await renewing.idle();
      await writing.idle();
    },
  };
  for (const record of await readRecords(devicesDir)) saved.set(nameOf(record), mergeRecord(record).usedAt);
  return usage;
}

/** Disk usage in bytes; 0 until measured. */
export function bytesOf({ sizes }: Pick<DeviceRecord, 'sizes'>): number {
  return sizes === null ? 0 : sizes.config + sizes.build + sizes.other;
}

/** The later use and the later measurement of two records of one device. */
function newest(a: DeviceRecord, b: DeviceRecord | null): DeviceRecord {
  if (b === null) return a;
  const measured = b.measuredAt > a.measuredAt ? b : a;
  return { ...measured, usedAt: Math.max(a.usedAt, b.usedAt) };
}
