/**
 * How much a tree holds. Links are counted as links and not followed, so that a planted one can neither inflate
 * a figure nor lead out of the tree.
 */
import { chmod, lstat, opendir, statfs } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../errors.js';

export interface Usage {
  /** Sum of the files' sizes, in bytes. */
  readonly bytes: number;
  readonly files: number;
  /**
   * What the volume gives for them and their directories, in bytes: a file with holes takes less than its size, and of
   * one that has several names each counts for its part.
   */
  readonly diskBytes: number;
}

/** As `stat` counts them, on every system. */
export const blockBytes = 512;

export interface MeasureOptions {
  /**
   * Gives this account the permission to look into directories of its own where it is missing: a build could hide
   * behind one what it fills the disk with.
   */
  readonly unlock?: boolean;
  /** Ends the walk: a build can make one of many minutes. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Measures `path`; nothing there, or vanishing meanwhile, counts as nothing, and so does what is deeper than the system
 * lets anybody name. Only directories wait for their turn, for a build can put more files into one than there is memory
 * for their names. Throws the signal's reason and system errors.
 */
export async function measure(path: string, { unlock = false, signal }: MeasureOptions = {}): Promise<Usage> {
  const sum = { bytes: 0, files: 0, diskBytes: 0 };
  const waiting = [path];

  async function look(at: string): Promise<void> {
    signal?.throwIfAborted();
    const stat = await lstat(at);
    if (stat.isDirectory()) {
      sum.diskBytes += stat.blocks * blockBytes;
      if (unlock && (stat.mode & ownAll) !== ownAll) await chmod(at, (stat.mode & 0o777) | ownAll);
      await lookInto(at);
    } else {
      sum.diskBytes += (stat.blocks * blockBytes) / Math.max(1, stat.nlink);
      sum.bytes += stat.size;
      sum.files += 1;
    }
  }

  async function lookInto(directory: string): Promise<void> {
    for await (const entry of await opendir(directory)) {
      const at = join(directory, entry.name);
      if (entry.isDirectory()) waiting.push(at);
      else await unlessGone(look(at));
    }
  }

  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) await unlessGone(look(at));
  return { ...sum, diskBytes: Math.round(sum.diskBytes) };
}

async function unlessGone(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!['ENOENT', 'ENAMETOOLONG'].includes(systemCode(error) ?? '')) throw error;
  }
}

/** Read, write and enter, for the owner. */
export const ownAll = 0o700;

/** How much room a volume has left for this account; what is reserved for root does not count. */

/** In bytes. Throws system errors. */
export async function freeSpaceBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}
