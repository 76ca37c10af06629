/**
 * Which devices have a directory here. Only what the parser takes for one counts, and no link ever does: a build has
 * planted it, and whoever walked through it would tidy up somebody else's files.
 */
import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';

import { messageOf, systemCode } from '../errors.js';
import { dashboardId, type DashboardId, type RemoteKey } from '../paths/index.js';
import { deviceSegment } from '../paths/segments.js';

export interface DevicesOnDisk {
  readonly keys: readonly RemoteKey[];
  /** The directories of peers, also of those without a device. */
  readonly peers: readonly DashboardId[];
  /** What lies among them and is neither: it stays, and somebody should look at it. */
  readonly strange: readonly Strange[];
}

export interface Strange {
  /** Relative to the builds directory. */
  readonly place: string;
  /** For people; names no place of this machine. */
  readonly why: string;
}

/** Throws system errors of the builds directory itself; what is wrong deeper is among `strange`. */
export async function devicesOnDisk(buildsDir: string): Promise<DevicesOnDisk> {
  const keys: RemoteKey[] = [];
  const peers: DashboardId[] = [];
  const strange: Strange[] = [];

  function readName<T>(entry: Dirent, read: (text: string) => T): T | null {
    const place = relative(buildsDir, join(entry.parentPath, entry.name));
    try {
      if (!entry.isDirectory())
        throw new Error(entry.isSymbolicLink() ? 'it is a link' : 'it is no directory');
      return read(entry.name);
    } catch (error) {
      strange.push({ place, why: messageOf(error) });
      return null;
    }
  }

  for (const entry of await readdir(buildsDir, { withFileTypes: true })) {
    if (entry.name === ownName) continue;
    const peer = readName(entry, dashboardId);
    if (peer === null) continue;
    peers.push(peer);
    try {
      for (const inner of await readdir(join(buildsDir, peer), { withFileTypes: true })) {
        const device = readName(inner, deviceSegment);
        if (device !== null) keys.push({ dashboardId: peer, device });
      }
    } catch (error) {
      // The system's own words name the place.
      strange.push({
        place: peer,
        why: `it cannot be looked into (${systemCode(error) ?? 'unknown error'})`,
      });
    }
  }
  return { keys, peers, strange };
}

/** Of the layout: it belongs to no device. */
const ownName = '.receiver';
