/**
 * What is on record of a device's use and size: one small file each, outside the device's own directory, where no build
 * can forge it. A modification time would not do: it is that of an upload or of a compiler's last file, says nothing of
 * a download, and a build can set it.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { writeAtomic } from '../disk/atomic-write.js';
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

const size = z.number().nonnegative();
const schema = z.object({
  dashboardId: z.string(),
  device: z.string(),
  usedAt: z.number(),
  sizes: z.object({ config: size, build: size, other: size }).nullable(),
  measuredAt: z.number(),
});

/** All that can be read; what cannot counts as not there. In one go, for it is small. Throws system errors. */
export function readRecords(devicesDir: string): DeviceRecord[] {
  const names = readdirSync(devicesDir).filter((name) => makerOf(name) === null);
  return names.flatMap((name) => readFile(join(devicesDir, name)) ?? []);
}

/** Null when there is none, or it is damaged. */
export function readRecord(devicesDir: string, key: RemoteKey): DeviceRecord | null {
  return readFile(fileOf(devicesDir, key));
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
    const read = schema.parse(parseJson(readFileSync(file)));
    return { ...read, dashboardId: dashboardId(read.dashboardId), device: deviceSegment(read.device) };
  } catch {
    // Also one that somebody has just removed.
    return null;
  }
}
