/**
 * Checks that a path is below a root after resolving links, before anything is written, read for a peer, or deleted. It
 * compares by relative path, because `/builds/kitchen2` begins with `/builds/kitchen` but is elsewhere, and resolves the
 * deepest existing ancestor, because the file itself may not exist yet.
 */
import { readlink, realpath } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';

import { ReceiverError, systemCode } from '../errors.js';

/** True when `path` is strictly below `root`; both can be reached through links, and `path` need not exist. */
export async function isInside(root: string, path: string): Promise<boolean> {
  return isBelow(await realPlace(root), await realPlace(path));
}

/** Throws `TRAVERSAL` unless {@link isInside}. `what` names the path in the message. */
export async function assertInside(root: string, path: string, what: string): Promise<void> {
  if (await isInside(root, path)) return;
  throw new ReceiverError('TRAVERSAL', `${what} lies outside its directory`, { root, path });
}

/** The same comparison for two paths without links. */
export function isBelow(root: string, path: string): boolean {
  const way = relative(root, path);
  return way !== '' && way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/**
 * Throws `TRAVERSAL` if `path` is reached through any link below `root`: a build created such a link, and it can lead
 * to another peer's directory. `path` need not exist.
 */
export async function assertUnlinked(root: string, path: string): Promise<void> {
  const straight = join(await realPlace(root), relative(resolve(root), resolve(path)));
  if ((await realPlace(path)) === straight) return;
  throw new ReceiverError('TRAVERSAL', 'the build directory is reached through a link', { path });
}

const maxLinks = 40;

/**
 * Resolves the links of the deepest existing ancestor and appends the rest unchanged. Follows dangling links as well: a
 * file created through one appears where it points.
 */
async function realPlace(path: string, links = 0): Promise<string> {
  const missing: string[] = [];
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      return resolve(await realpath(at), ...missing);
    } catch (error) {
      if (systemCode(error) !== 'ENOENT' || dirname(at) === at || links > maxLinks) throw error;
    }
    const target = await readlink(at).catch(() => null);
    if (target !== null) return realPlace(resolve(dirname(at), target, ...missing), links + 1);
    missing.unshift(at.slice(dirname(at).length).replace(/^[\\/]/, ''));
  }
}
