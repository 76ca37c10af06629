/**
 * Which devices have a directory here. Only what the parser takes for one counts, and no link ever does: a build has
 * planted it, and whoever walked through it would tidy up somebody else's files.
 */
import type { Dirent } from 'node:fs';
import { opendir } from 'node:fs/promises';
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
  /** Relative to the builds directory; '' for the rest of too many. */
  readonly place: string;
  /** For people; names no place of this machine. */
  readonly why: string;
}

/** Far more than a person has. A build can make a million directories in a minute, and each would cost us a record. */
export const maxDevicesPerPeer = 4_096;
/** A report is for people to read. */
export const maxStrange = 100;

/**
 * One entry after the other, so that a directory with a million of them holds nobody else up. Throws system errors of
 * the builds directory itself; what is wrong deeper is among `strange`.
 */
export async function devicesOnDisk(buildsDir: string): Promise<DevicesOnDisk> {
  const keys: RemoteKey[] = [];
  const strange: Strange[] = [];
  let unnamed = 0;

  function note(place: string, why: string): void {
    if (strange.length < maxStrange) strange.push({ place: relative(buildsDir, place), why });
    else unnamed += 1;
  }

  /** The directories of ours among what is there, as many as there may be. Throws system errors. */
  async function namesIn<T>(directory: string, most: number, read: (text: string) => T): Promise<T[]> {
    const names: T[] = [];
    for await (const entry of await opendir(directory)) {
      if (directory === buildsDir && entry.name === ownName) continue;
      const fault = names.length < most ? kindFault(entry) : 'there are too many';
      try {
        if (fault !== null) throw new Error(fault);
        names.push(read(entry.name));
      } catch (error) {
        note(join(directory, entry.name), messageOf(error));
      }
    }
    return names;
  }

  const peers = await namesIn(buildsDir, Infinity, dashboardId);
  for (const peer of peers) {
    const directory = join(buildsDir, peer);
    try {
      const devices = await namesIn(directory, maxDevicesPerPeer, deviceSegment);
      keys.push(...devices.map((device) => ({ dashboardId: peer, device })));
    } catch (error) {
      // The system's own words name the place.
      note(directory, `it cannot be looked into (${systemCode(error) ?? 'unknown error'})`);
    }
  }
  if (unnamed > 0) strange.push({ place: '', why: `${unnamed} more are not named here` });
  return { keys, peers, strange };
}

/** Of the layout: it belongs to no device. */
const ownName = '.receiver';

function kindFault(entry: Dirent): string | null {
  if (entry.isDirectory()) return null;
  return entry.isSymbolicLink() ? 'it is a link' : 'it is no directory';
}
