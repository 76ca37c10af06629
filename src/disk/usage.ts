/**
 * Measures the size of trees and the free space of volumes. Links are counted as links and not followed, so that a
 * planted one can neither inflate a figure nor lead out of the tree.
 */
import { chmod, lstat } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../errors.js';
import { entriesIn, onDisk } from './names.js';

export interface Usage {
  /** Sum of the files' sizes, in bytes. */
  readonly bytes: number;
  readonly files: number;
  /**
   * The space that files and directories occupy on the volume, in bytes: a sparse file occupies less than its size, and
   * each name of a hard-linked file counts for its share.
   */
  readonly diskBytes: number;
}

/** The unit of `stat.blocks` on every system. */
export const blockBytes = 512;

export interface MeasureOptions {
  /**
   * Adds missing permissions to this account's own directories: a build could otherwise hide in one what fills the disk.
   */
  readonly unlock?: boolean;
  /** Aborts the walk, which a build can extend to many minutes. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Measures `path`. Missing or vanishing entries count as nothing, and so do those whose path is too long for the system.
 * Only directories are queued, because a build can put more files into one than there is memory for their names. Throws
 * the signal's reason and system errors.
 */
export async function measure(path: string, { unlock = false, signal }: MeasureOptions = {}): Promise<Usage> {
  const sum = { bytes: 0, files: 0, diskBytes: 0 };
  const waiting = [path];

  async function measureEntry(at: string): Promise<void> {
    signal?.throwIfAborted();
    const stat = await lstat(onDisk(at));
    if (stat.isDirectory()) {
      sum.diskBytes += stat.blocks * blockBytes;
      if (unlock && (stat.mode & ownAll) !== ownAll) await chmod(onDisk(at), (stat.mode & 0o777) | ownAll);
      await measureDirectory(at);
    } else {
      sum.diskBytes += (stat.blocks * blockBytes) / Math.max(1, stat.nlink);
      sum.bytes += stat.size;
      sum.files += 1;
    }
  }

  async function measureDirectory(directory: string): Promise<void> {
    for await (const { name, isDirectory } of entriesIn(directory)) {
      const at = join(directory, name);
      if (isDirectory) waiting.push(at);
      else await unlessGone(measureEntry(at));
    }
  }

  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) await unlessGone(measureEntry(at));
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
