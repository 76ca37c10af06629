/**
 * Records each device's last use and size in one small file, outside the device's own directory, where no build can
 * forge it. Modification times do not serve: uploads and compilers set them, downloads do not, and a build can set any.
 */
import { rm, chmod, lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';

import * as z from 'zod';

import { readJsonFileSync, writeJsonFile } from '../disk/json-file.js';
import { entriesIn, namesIn } from '../disk/names.js';
import { makerOf } from '../disk/names.js';
import { blockBytes, measure, ownAll } from '../disk/usage.js';
import { systemCode } from '../errors.js';
import { dashboardId, type RemoteKey } from '../paths/index.js';
import { deviceSegment, hashName } from '../paths/segments.js';

export interface DeviceRecord extends RemoteKey {
  /** Last build, download or touch, in milliseconds since 1970. */
  readonly usedAt: number;
  /** Null until measured. */
  readonly sizes: Sizes | null;
  /** 0 if never measured. */
  readonly measuredAt: number;
}

/** Disk usage in bytes. */
export interface Sizes {
  readonly config: number;
  readonly build: number;
  /** Sidecars, the device's own caches, and files that a build wrote elsewhere. */
  readonly other: number;
}

const size = z.number().min(0).max(Number.MAX_SAFE_INTEGER);
const schema = z.object({
  dashboardId: z.string(),
  device: z.string(),
  usedAt: z.number(),
  sizes: z.object({ config: size, build: size, other: size }).nullable(),
  measuredAt: z.number(),
});
const format = { maxBytes: 16_384, parse: schema.parse };

/**
 * Skips records that are unreadable or stored under another device's name. Reads one file per turn of the event loop: a
 * thousand at once would block everything else. Throws system errors.
 */
export async function readRecords(devicesDir: string): Promise<DeviceRecord[]> {
  const records: DeviceRecord[] = [];
  for (const name of await namesIn(devicesDir)) {
    if (makerOf(name) !== null) continue;
    const record = readFile(join(devicesDir, name));
    if (record !== null && fileOf(devicesDir, record) === join(devicesDir, name)) records.push(record);
    await nextTurn();
  }
  return records;
}

/** Null when the record is missing, damaged or another device's. */
export function readRecord(devicesDir: string, key: RemoteKey): DeviceRecord | null {
  const record = readFile(fileOf(devicesDir, key));
  return record?.dashboardId === key.dashboardId && record.device === key.device ? record : null;
}

/** Throws system errors. */
export async function writeRecord(devicesDir: string, record: DeviceRecord): Promise<void> {
  await writeJsonFile(fileOf(devicesDir, record), record);
}

export async function removeRecord(devicesDir: string, key: RemoteKey): Promise<void> {
  await rm(fileOf(devicesDir, key), { force: true });
}

function fileOf(devicesDir: string, { dashboardId: id, device }: RemoteKey): string {
  return join(devicesDir, `${hashName('device', id, device)}.json`);
}

function readFile(file: string): DeviceRecord | null {
  try {
    const read = readJsonFileSync(file, format);
    return { ...read, dashboardId: dashboardId(read.dashboardId), device: deviceSegment(read.device) };
  } catch {
    return null;
  }
}

/** Walks a device's directory; null when it does not exist. Throws the signal's reason and system errors. */
export async function sizesOf(subtree: string, signal?: AbortSignal): Promise<Sizes | null> {
  const sizes = { config: 0, build: 0, other: 0 };
  try {
    const stat = await lstat(subtree);
    if (!stat.isDirectory()) return null;
    sizes.other = stat.blocks * blockBytes;
    // As in `measure`: a build could hide its files behind missing permissions.
    if ((stat.mode & ownAll) !== ownAll) await chmod(subtree, (stat.mode & 0o777) | ownAll);
    for await (const { name } of entriesIn(subtree)) {
      const kind = name === 'config' || name === 'build' ? name : 'other';
      const { diskBytes } = await measure(join(subtree, name), { unlock: true, signal });
      sizes[kind] += diskBytes;
    }
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return null;
    throw error;
  }
  return sizes;
}
