/**
 * When each device was last used and what it takes, in memory for every question and on record for the next start and for
 * other receivers on the same disk.
 *
 * A use that is not known is never taken for an old one: a device without a record counts as used now, and so does one
 * whose record is of a time to come or of before this software, for then the clock was wrong, as that of a board
 * without a battery is at its start.
 */
import { type Clock, watchWallClock } from '../async/clock.js';
import { createKeyedQueue, createSerialQueue } from '../async/serial-queue.js';
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

export interface DeviceUsageLog {
  /** In no order. */
  list(): readonly DeviceRecord[];
  get(key: RemoteKey): DeviceRecord | undefined;
  /** Notes that a device is used now. On record soon; to the minute. */
  touch(key: RemoteKey): void;
  /** Walks a device's directory and notes what it takes, unless the signal ends that. Never rejects. */
  measure(key: RemoteKey, signal?: AbortSignal): Promise<void>;
  /** Takes in what others have noted, under the lease of the device: nobody uses it now. */
  look(key: RemoteKey): DeviceRecord | undefined;
  /** Drops what is known of a device whose directory is gone. Never rejects. */
  forget(key: RemoteKey): Promise<void>;
  /**
   * Compares with the disk: takes in devices that are new to this receiver, and drops those that are gone. Returns what
   * is no device. Throws system errors.
   */
  refresh(): Promise<readonly Strange[]>;
  /** Resolves when all is on record. */
  settled(): Promise<void>;
}

export interface DeviceUsageLogOptions {
  readonly layout: Pick<Layout, 'buildsDir' | 'devicesDir' | 'subtree'>;
  readonly clock: Pick<Clock, 'wall' | 'steady'>;
  readonly log: Log;
}

/** Reads what is on record. Throws system errors. */
export async function openDeviceUsage(options: DeviceUsageLogOptions): Promise<DeviceUsageLog> {
  const { layout, clock, log } = options;
  const now = clock.wall;
  const { buildsDir, devicesDir } = layout;
  const jumps = watchWallClock(clock);
  const records = new Map<string, DeviceRecord>();
  /** Uses as they stand on record. */
  const saved = new Map<string, number>();
  const writing = createKeyedQueue();
  /** Writes of all, after the clock was set. */
  const renewing = createSerialQueue();

  const nameOf = (key: RemoteKey): string => layout.subtree(key);

  /** One write of a device after the other, each of what is known when its turn comes. */
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

  /** A use at a time that cannot be is taken for one now; a measurement that was made then is made anew. */
  function corrected(record: DeviceRecord): DeviceRecord {
    const { usedAt, measuredAt } = record;
    const latest = now() + precisionMs;
    const isUseRight = canBeUse(usedAt, now());
    if (isUseRight && measuredAt <= latest) return record;
    return {
      ...record,
      usedAt: isUseRight ? usedAt : now(),
      measuredAt: measuredAt <= latest ? measuredAt : 0,
    };
  }

  /** Has all uses be as long ago as they are, when the clock was set forward since the last look at it. */
  function heedClock(): void {
    const ms = jumps.taken();
    if (ms === 0) return;
    log.info({ ms }, 'wall clock jumped forward, shifted last-used times');
    const all = usage.list();
    for (const record of all) put({ ...record, usedAt: Math.min(record.usedAt + ms, now()) });
    void renewing.run(async () => {
      for (const record of all) await save(record);
    });
  }

  function takeIn(found: DeviceRecord): DeviceRecord {
    const right = corrected(found);
    const own = records.get(nameOf(found));
    const record = put(own ? newest(corrected(own), right) : right);
    if (right !== found) void save(found);
    return record;
  }

  const usage: DeviceUsageLog = {
    list: () => [...records.values()],
    get: (key) => records.get(nameOf(key)),
    touch(key) {
      heedClock();
      const record = put({ ...known(key), usedAt: now() });
      const last = saved.get(nameOf(key));
      if (last !== undefined && Math.abs(record.usedAt - last) < precisionMs) return;
      saved.set(nameOf(key), record.usedAt);
      void save(key);
    },
    async measure(key, signal) {
      try {
        const wasKnown = records.has(nameOf(key));
        const sizes = await sizesOf(layout.subtree(key), signal);
        if (sizes === null) return await usage.forget(key);
        // Removed during the walk: what was measured is gone.
        if (wasKnown && !records.has(nameOf(key))) return;
        const record = corrected(known(key));
        // Newer than the one before, also where the clock was set back by a little.
        put({ ...record, sizes, measuredAt: Math.max(now(), record.measuredAt + 1) });
        await save(key);
      } catch (error) {
        if (signal?.aborted === true) return;
        log.warn({ ...key, err: error }, 'device measurement failed');
      }
    },
    look(key) {
      heedClock();
      const found = readRecord(devicesDir, key);
      if (found !== null) return takeIn(found);
      const own = records.get(nameOf(key));
      return own && put(corrected(own));
    },
    async forget(key) {
      records.delete(nameOf(key));
      saved.delete(nameOf(key));
      await save(key);
    },
    async refresh() {
      heedClock();
      const { keys, strange } = await devicesOnDisk(buildsDir);
      const here = new Set(keys.map(nameOf));
      for (const record of await readRecords(devicesDir)) {
        if (here.has(nameOf(record))) saved.set(nameOf(record), takeIn(record).usedAt);
        else if (!(await isThere(layout.subtree(record)))) await usage.forget(record);
      }
      for (const record of [...records.values()]) {
        if (!here.has(nameOf(record)) && !(await isThere(layout.subtree(record)))) await usage.forget(record);
      }
      for (const key of keys) {
        const own = records.get(nameOf(key));
        put(own ? corrected(own) : known(key));
        if (own === undefined) await save(key);
      }
      return strange;
    },
    async settled() {
      await renewing.idle();
      await writing.idle();
    },
  };
  for (const record of await readRecords(devicesDir)) {
    saved.set(nameOf(record), takeIn(record).usedAt);
  }
  return usage;
}

/** In bytes of the volume; nothing as long as it is not measured. */
export function bytesOf({ sizes }: Pick<DeviceRecord, 'sizes'>): number {
  return sizes === null ? 0 : sizes.config + sizes.build + sizes.other;
}

/** The later use and the later measurement of two records of one device. */
function newest(a: DeviceRecord, b: DeviceRecord | null): DeviceRecord {
  if (b === null) return a;
  const measured = b.measuredAt > a.measuredAt ? b : a;
  return { ...measured, usedAt: Math.max(a.usedAt, b.usedAt) };
}
