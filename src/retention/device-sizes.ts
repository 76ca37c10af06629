/**
 * What a device takes of the volume, by a walk: its directory itself, which a build may have made unreadable, and all
 * that is below.
 */
import { chmod, lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';

import { blockBytes, measure, ownAll } from '../disk/usage.js';
import { systemCode } from '../errors.js';
import type { Sizes } from './device-record.js';

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
