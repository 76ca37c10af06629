/**
 * The builds of peers as a whole: which there are, and the removal of one. A host that walked the directories by
 * itself would follow a link that a peer's build has planted, or delete under a running compiler.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { isReceiverError, systemCode } from '../errors.js';
import type { Configuration, Paths, RemoteKey } from '../paths/index.js';
import { remoteKeyOf } from '../paths/remote-key.js';
import type { ReceiverCore } from '../core.js';

/** The configurations of all builds that are here, also of those whose jobs are forgotten. In order of their names. */
export async function listRemote(paths: Paths): Promise<readonly Configuration[]> {
  const found: Configuration[] = [];
  for (const peer of await namesIn(paths.buildsDir, 'isDirectory')) {
    for (const name of await namesIn(join(paths.buildsDir, peer), 'isDirectory')) {
      const key = keyOf(paths, peer, name);
      if (key !== null) found.push(...(await configurationsOf(paths, key)));
    }
  }
  return found;
}

/**
 * Removes all that is here of one device of a peer, once no build of it runs. Nothing there is fine. Throws `STATE`
 * for a local configuration, `TRAVERSAL` for a directory that is reached through a link, `LOCK_TIMEOUT`.
 */
export async function removeRemote(
  { paths, underLease }: Pick<ReceiverCore, 'paths' | 'underLease'>,
  configuration: string,
): Promise<void> {
  const key = remoteKeyOf(paths, configuration);
  const { layout, buildsDir } = paths;
  await underLease(key, 'the device is being removed', async () => {
    await assertUnlinked(buildsDir, layout.subtree(key));
    const trashed = await moveToTrash(layout.subtree(key), layout.trashDir);
    if (trashed !== null) await removeTree(trashed);
  });
}

/** What the names of two directories mean together; the parser decides. */
function keyOf(paths: Paths, peer: string, name: string): RemoteKey | null {
  return orNull(() => paths.parseConfiguration(`.esphome/.remote_builds/${peer}/${name}/any.yaml`));
}

async function configurationsOf(paths: Paths, key: RemoteKey): Promise<Configuration[]> {
  if (!(await namesIn(paths.layout.subtree(key), 'isDirectory')).includes('config')) return [];
  const files = await namesIn(paths.layout.configTree(key), 'isFile');
  return files
    .filter((file) => orNull(() => paths.deviceFromFile(file)) === key.device)
    .map((file) => paths.formatConfiguration(key, file));
}

/** Names of real directories or files, never of links. A directory that is not there has none. */
async function namesIn(directory: string, kind: 'isFile' | 'isDirectory'): Promise<string[]> {
  try {
    const entries = await readdir(directory, { withFileTypes: true });
    return entries
      .filter((entry) => entry[kind]())
      .map(({ name }) => name)
      .toSorted();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
}

/** What the parser refuses is not a build. */
function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return null;
    throw error;
  }
}
