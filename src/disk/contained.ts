/**
 * Whether a path really lies below a root, after links: the check before anything is written, read for a peer,
 * or deleted. It compares by relative path, because `/builds/kitchen2` begins with `/builds/kitchen` and lies
 * elsewhere, and it resolves the deepest ancestor that exists, because the file itself may be yet to come.
 */
import { readlink, realpath } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';

import { ReceiverError, systemCode } from '../errors.js';

/** True when `path` lies strictly below `root`; both may be reached through links, and `path` need not exist. */
export async function isInside(root: string, path: string): Promise<boolean> {
  return isBelow(await realPlace(root), await realPlace(path));
}

/** As {@link isInside}, throwing `TRAVERSAL`. `what` names the path for people. */
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
 * Refuses a path below `root` that is reached through any link below it: such a link was made by a build and may
 * name another peer's directory. `path` need not exist. Throws `TRAVERSAL`.
 */
export async function assertUnlinked(root: string, path: string): Promise<void> {
  const straight = join(await realPlace(root), relative(resolve(root), resolve(path)));
  if ((await realPlace(path)) === straight) return;
  throw new ReceiverError('TRAVERSAL', 'the build directory is reached through a link', { path });
}

const maxLinks = 40;

/**
 * Resolves the links of the deepest existing ancestor; what is below it is taken as it stands. A link that leads
 * nowhere is followed as well: a file that is created through it comes to be where it points.
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
