/**
 * What is on record of a device's use and size: one small file each, outside the device's own directory, where no build
 * can forge it. A modification time would not do: it is that of an upload or of a compiler's last file, says nothing of
 * a download, and a build can set it.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import * as z from 'zod';

import { writeAtomic } from '../disk/atomic-write.js';
import { readRegularSync } from '../disk/open-regular.js';
import { makerOf } from '../disk/temporary.js';
import { parseJson } from '../esphome/json-object.js';
import { lockName } from '../locks/subtree-lease.js';
import { dashboardId, type RemoteKey } from '../paths/index.js';
import { deviceSegment } from '../paths/segments.js';

export interface DeviceRecord extends RemoteKey {
  /** When it was last built, downloaded or asked for. Milliseconds since 1970. */
  readonly usedAt: number;
  /** What it takes of the volume; null as long as nobody has measured it. */
  readonly sizes: Sizes | null;
  /** When that was measured; 0 for never. */
  readonly measuredAt: number;
}

/** In bytes of the volume. */
export interface Sizes {
  /** The uploaded configuration. */
  readonly config: number;
  readonly build: number;
  /** Sidecars, caches of the device's own, what a build has put elsewhere. */
  readonly other: number;
}

/** More is none of ours. */
const maxRecordBytes = 16_384;

const size = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const schema = z.object({
  dashboardId: z.string(),
  device: z.string(),
  usedAt: z.number(),
  sizes: z.object({ config: size, build: size, other: size }).nullable(),
  measuredAt: z.number(),
});

/**
 * All that can be read; what cannot counts as not there, and so does one under another device's name. One file a turn:
 * a thousand at once would hold everybody else up. Throws system errors.
 */
export async function readRecords(devicesDir: string): Promise<DeviceRecord[]> {
  const records: DeviceRecord[] = [];
  for (const name of await readdir(devicesDir)) {
    if (makerOf(name) !== null) continue;
    const record = readFile(join(devicesDir, name));
    if (record !== null && fileOf(devicesDir, record) === join(devicesDir, name)) records.push(record);
    await turn();
  }
  return records;
}

/** Null when there is none, it is damaged, or of another device. */
export function readRecord(devicesDir: string, key: RemoteKey): DeviceRecord | null {
  const record = readFile(fileOf(devicesDir, key));
  return record?.dashboardId === key.dashboardId && record.device === key.device ? record : null;
}

/** Throws system errors. */
export async function writeRecord(devicesDir: string, record: DeviceRecord): Promise<void> {
  await writeAtomic(fileOf(devicesDir, record), JSON.stringify(record));
}

/** Nothing there is fine. */
export async function removeRecord(devicesDir: string, key: RemoteKey): Promise<void> {
  await rm(fileOf(devicesDir, key), { force: true });
}

function fileOf(devicesDir: string, { dashboardId: id, device }: RemoteKey): string {
  return join(devicesDir, `${lockName('device', id, device)}.json`);
}

function readFile(file: string): DeviceRecord | null {
  try {
    const read = schema.parse(parseJson(readRegularSync(file, maxRecordBytes)));
    return { ...read, dashboardId: dashboardId(read.dashboardId), device: deviceSegment(read.device) };
  } catch {
    // Also one that somebody has just removed.
    return null;
  }
}
