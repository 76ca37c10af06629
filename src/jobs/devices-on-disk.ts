/**
 * Lists the devices that have a directory. Only names that the parser accepts count, and never a link: a build planted
 * it, and following it would clean up files that belong to somebody else.
 */
import type { Dirent } from 'node:fs';
import { opendir } from 'node:fs/promises';
import { join, relative } from 'node:path';

import { isThere } from '../disk/open-regular.js';
import { messageOf, systemCode } from '../errors.js';
import { dashboardId, type RemoteKey } from '../paths/index.js';
import { deviceSegment } from '../paths/segments.js';

export interface Strange {
  /** Relative to the builds directory; '' for the rest of too many. */
  readonly place: string;
  /** A readable reason without host paths. */
  readonly why: string;
}

/** A build can create a million directories in a minute, and each would cost a record. */
export const maxDevicesPerPeer = 4_096;
export const maxStrange = 100;

/**
 * Reads one entry at a time, so that a directory with a million entries does not block other work. Throws system
 * errors of the builds directory itself, unless it is gone; deeper errors are listed in `strange`, which is kept for an operator to check.
 * `peers` includes those without a device.
 */
export async function devicesOnDisk(buildsDir: string) {
  const keys: RemoteKey[] = [];
  const strange: Strange[] = [];
  let unnamed = 0;

  function reportStrange(place: string, why: string): void {
    if (strange.length < maxStrange) strange.push({ place: relative(buildsDir, place), why });
    else unnamed += 1;
  }

  /** The valid directory names, at most `most`. Throws system errors. */
  async function namesIn<T>(directory: string, most: number, read: (text: string) => T): Promise<T[]> {
    const names: T[] = [];
    for await (const entry of await opendir(directory)) {
      if (directory === buildsDir && entry.name === ownName) continue;
      const fault = names.length < most ? kindFault(entry) : 'there are too many';
      try {
        if (fault !== null) throw new Error(fault);
        names.push(read(entry.name));
      } catch (error) {
        reportStrange(join(directory, entry.name), messageOf(error));
      }
    }
    return names;
  }

  const isGone = !(await isThere(buildsDir));
  const peers = isGone ? [] : await namesIn(buildsDir, Infinity, dashboardId);
  for (const peer of peers) {
    const directory = join(buildsDir, peer);
    try {
      const devices = await namesIn(directory, maxDevicesPerPeer, deviceSegment);
      keys.push(...devices.map((device) => ({ dashboardId: peer, device })));
    } catch (error) {
      // The system's own message contains the host path.
      reportStrange(directory, `it cannot be looked into (${systemCode(error) ?? 'unknown error'})`);
    }
  }
  if (unnamed > 0) strange.push({ place: '', why: `${unnamed} more are not named here` });
  return { keys, peers, strange };
}

const ownName = '.receiver';

function kindFault(entry: Dirent): string | null {
  if (entry.isDirectory()) return null;
  return entry.isSymbolicLink() ? 'it is a link' : 'it is not a directory';
}
