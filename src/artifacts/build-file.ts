/**
 * Finds a file of a build. The peer's own code wrote the tree and the paths in the sidecar, so only a regular file
 * that really lies below the given root counts: a link named `firmware.bin` would otherwise fetch any file of the
 * host.
 */
import { lstat, realpath } from 'node:fs/promises';

import { assertInside } from '../disk/contained.js';
import { isReceiverError, quote, ReceiverError, systemCode } from '../errors.js';

export interface BuildFile {
  /** As a peer may read it: below the build where it is one of the tree's, forward slashes. */
  readonly name: string;
  /** Absolute, without links. */
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly mtimeMs: number;
}

/**
 * Looks for `path` below `root`. Null when nothing is there. Throws `TRAVERSAL` for a place outside, after links, and
 * `STORAGE` for a link, a directory or anything else that is no file, or cannot be looked at.
 */
export async function findBuildFile(root: string, path: string, name: string): Promise<BuildFile | null> {
  return withoutPlaces(async () => {
    try {
      const stat = await lstat(path);
      await assertInside(root, path, quote(name));
      if (stat.isFile()) {
        return { name, path: await realpath(path), size: stat.size, mtimeMs: stat.mtimeMs };
      }
    } catch (error) {
      const code = systemCode(error);
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return null;
      throw error;
    }
    const facts = { path, fault: 'unreadable' };
    throw new ReceiverError('STORAGE', `${quote(name)} is not a regular file`, facts);
  });
}

/** Makes a system error of `work` one of `STORAGE`: messages travel, and those of the system name places. */
export async function withoutPlaces<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const code = systemCode(cause);
    if (isReceiverError(cause) || code === undefined) throw cause;
    const facts = { fault: 'unreadable' };
    throw new ReceiverError('STORAGE', `a file of the build cannot be used (${code})`, facts, { cause });
  }
}
