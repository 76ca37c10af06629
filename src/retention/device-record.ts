/**
 * What is on record of a device's use and size: one small file each, outside the device's own directory, where no build
 * can forge it. A modification time would not do: it is that of an upload or of a compiler's last file, says nothing of
 * a download, and a build can set it.
 */
import { readdir, rm, chmod, lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import * as z from 'zod';

import { readJsonFileSync, writeJsonFile } from '../disk/json-file.js';
import { makerOf } from '../disk/temporary.js';
import { blockBytes, measure, ownAll } from '../disk/usage.js';
import { systemCode } from '../errors.js';
import { dashboardId, type RemoteKey } from '../paths/index.js';
import { deviceSegment, hashName } from '../paths/segments.js';

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
  await writeJsonFile(fileOf(devicesDir, record), record);
}

/** Nothing there is fine. */
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
    // Also one that somebody has just removed.
    return null;
  }
}

/**
 * What a device takes of the volume, by a walk: its directory itself, which a build may have made unreadable, and all
 * that is below.
 */

/** Null when there is no such directory. Throws the signal's reason and system errors. */
export async function sizesOf(subtree: string, signal?: AbortSignal): Promise<Sizes | null> {
  const sizes = { config: 0, build: 0, other: 0 };
  try {
    const stat = await lstat(subtree);
    if (!stat.isDirectory()) return null;
    sizes.other = stat.blocks * blockBytes;
    // As below it: a build could hide what it fills the disk with.
    if ((stat.mode & ownAll) !== ownAll) await chmod(subtree, (stat.mode & 0o777) | ownAll);
    for await (const { name } of await opendir(subtree)) {
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
