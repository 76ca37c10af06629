/**
 * Finds a file of a build for sending it away. The peer's own code wrote the tree and the paths in the sidecar, so
 * only a regular file that really lies below the given root counts: a link named `firmware.bin` would otherwise
 * fetch any file of the host.
 */
import { lstat, realpath } from 'node:fs/promises';

import { isBelow } from '../disk/contained.js';
import { quote, systemCode } from '../errors.js';
import { artifactsError } from './refusal.js';

export interface BuildFile {
  /** Without links. */
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly mtimeMs: number;
}

/**
 * Looks for `path` below `root`, which must be free of links. Null when nothing is there. Throws `ARTIFACTS` for a
 * link, a directory or anything else that is no file, and for a place outside. `name` is what the peer calls it.
 */
export async function findBuildFile(root: string, path: string, name: string): Promise<BuildFile | null> {
  try {
    const stat = await lstat(path);
    if (!stat.isFile()) throw artifactsError('pack_failed', `${quote(name)} is not a regular file`, { path });
    const real = await realpath(path);
    if (isBelow(root, real)) return { path: real, size: stat.size, mtimeMs: stat.mtimeMs };
    throw artifactsError('pack_failed', `${quote(name)} lies outside the build`, { path, root });
  } catch (error) {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ENAMETOOLONG') return null;
    throw error;
  }
}
