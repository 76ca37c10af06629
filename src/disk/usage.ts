/**
 * How much a tree holds. Links are counted as links and not followed, so that a planted one can neither inflate
 * a figure nor lead out of the tree.
 */
import { chmod, lstat, opendir } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../errors.js';

export interface Usage {
  /** Sum of the files' sizes, in bytes. */
  readonly bytes: number;
  readonly files: number;
  /** What the volume gives for them and their directories, in bytes: a file with holes takes less than its size. */
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
  /** Ends the walk with its reason. */
  readonly signal?: AbortSignal;
}

/**
 * Measures `path`; nothing there, or vanishing meanwhile, counts as nothing, and so does what is deeper than the system
 * lets anybody name.
 */
export async function measure(path: string, { unlock = false, signal }: MeasureOptions = {}): Promise<Usage> {
  const sum = { bytes: 0, files: 0, diskBytes: 0 };
  const waiting = [path];
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    signal?.throwIfAborted();
    try {
      const stat = await lstat(at);
      sum.diskBytes += stat.blocks * blockBytes;
      if (stat.isDirectory()) {
        if (unlock && (stat.mode & ownAll) !== ownAll) await chmod(at, (stat.mode & 0o777) | ownAll);
        for await (const entry of await opendir(at)) waiting.push(join(at, entry.name));
      } else {
        sum.bytes += stat.size;
        sum.files += 1;
      }
    } catch (error) {
      if (!['ENOENT', 'ENAMETOOLONG'].includes(systemCode(error) ?? '')) throw error;
    }
  }
  return sum;
}

/** Read, write and enter, for the owner. */
export const ownAll = 0o700;
