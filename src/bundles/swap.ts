/**
 * Puts a staged bundle in the place of a device's configuration, by two renames: the old tree goes to the trash,
 * the new one comes. ESPHome's own directories beside it keep their build caches.
 *
 * A receiver that dies between the two leaves no configuration at all, never a mixed one; the next job of the
 * device brings its own, so there is nothing to repair. The caller holds the lock on the subtree.
 */
import { mkdir, realpath, rename } from 'node:fs/promises';
import { join, relative } from 'node:path';

import { syncDirectory } from '../disk/atomic-write.js';
import { assertInside } from '../disk/contained.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { ReceiverError } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import type { StagedBundle } from './staged.js';

export interface SwapOptions {
  readonly layout: Layout;
  readonly key: RemoteKey;
  readonly log?: Log | undefined;
}

/**
 * Installs the bundle; its directory is `<subtree>/config` afterwards. When the second rename fails the old tree is
 * put back and the bundle stays where it was. Throws `TRAVERSAL` when the subtree is reached through a link below the
 * builds directory, and system errors.
 */
export async function swapIn(
  staged: StagedBundle,
  { layout, key, log = silentLog }: SwapOptions,
): Promise<void> {
  const subtree = layout.subtree(key);
  const target = layout.configTree(key);
  await assertInside(layout.buildsDir, subtree, 'the build directory');
  await mkdir(subtree, { recursive: true });
  await assertUnlinked(layout.buildsDir, subtree);
  const old = await moveToTrash(target, layout.trashDir);
  try {
    await rename(staged.directory, target);
  } catch (error) {
    if (old !== null) await rename(old, target);
    throw error;
  }
  await syncDirectory(subtree);
  if (old !== null) await discardOld(old, log);
}

/** A device's subtree that is a link, perhaps to another peer's, was made by a build and not by us. */
async function assertUnlinked(root: string, path: string): Promise<void> {
  const straight = join(await realpath(root), relative(root, path));
  if ((await realpath(path)) === straight) return;
  throw new ReceiverError('TRAVERSAL', 'the build directory is reached through a link', { path });
}

async function discardOld(old: string, log: Log): Promise<void> {
  try {
    await removeTree(old);
  } catch (error) {
    log.warn({ error, old }, 'a replaced configuration could not be removed; the sweep will try again');
  }
}
