/**
 * Puts a staged bundle in the place of a device's configuration, by renames: the old tree steps aside to
 * `.config.old`, the new one comes, the old one goes. ESPHome's own directories beside it keep their build caches.
 *
 * A receiver may be killed between any two steps, and what it leaves has one meaning: while `config` is missing,
 * `.config.old` is the device's configuration, and once there is a `config`, it is rubbish. `.config.from` names the
 * staging directory that was to come last: when that is gone, it has come. The caller holds the lock on the subtree.
 */
import { lstat, mkdir, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { syncDirectory } from '../disk/atomic-write.js';
import { assertInside, assertUnlinked } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { isReceiverError, systemCode } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';

const maxNameBytes = 255;

/** A complete bundle in a directory that is installed by renaming it. `defer` takes work to wait for later. */
export interface InstallableBundle {
  readonly directory: string;
  defer(work: Promise<void>): void;
}

export interface InstallOptions {
  readonly layout: Layout;
  readonly key: RemoteKey;
  readonly log?: Log | undefined;
}

/**
 * Installs the bundle; its directory is `<subtree>/config` afterwards. When it cannot come the old tree is put back
 * and the bundle stays where it was. The old tree is out of the way, and what its removal still takes (0.1 s for some
 * hundred files) no compile waits for, but the bundle's `discard`. A bundle that is installed already, because a
 * receiver has ended since, stays. Throws `TRAVERSAL` when the subtree is reached through a link below the builds
 * directory, and system errors.
 */
export async function installBundle(staged: InstallableBundle, options: InstallOptions): Promise<void> {
  const { layout, key } = options;
  const subtree = layout.subtree(key);
  await assertInside(layout.buildsDir, subtree, 'the build directory');
  await mkdir(subtree, { recursive: true });
  await repairInstall(options);
  if (await isInstalled(staged.directory, options)) return;
  await removeTree(origin(options));
  await writeFile(origin(options), basename(staged.directory), { flag: 'wx', mode: 0o600 });
  await renameIfThere(layout.configTree(key), oldTree(options));
  try {
    await rename(staged.directory, layout.configTree(key));
  } catch (error) {
    await removeTree(origin(options));
    await repairInstall(options);
    throw error;
  }
  await syncDirectory(subtree);
  staged.defer(removeRest(await settle(options), options));
}

/** Whether the device's configuration is the bundle that was staged in `directory`. Throws system errors. */
export async function isInstalled(directory: string, options: InstallOptions): Promise<boolean> {
  if ((await kindOf(directory)) !== 'nothing') return false;
  return (await lastToCome(options)) === basename(directory);
}

/** Whether a swap in the device's subtree was cut short. */
export async function isInstallCut(options: InstallOptions): Promise<boolean> {
  return (await kindOf(oldTree(options))) !== 'nothing';
}

/** Ends a swap that was cut short: one whole tree is at `config`, the other one is gone. Throws as {@link installBundle}. */
export async function repairInstall(options: InstallOptions): Promise<void> {
  await removeRest(await settle(options), options);
}

/** Leaves one whole tree, at `config`. Returns where the other one waits for its removal, if there was one. */
async function settle(options: InstallOptions): Promise<string | null> {
  const { layout, key, log = silentLog } = options;
  await assertUnlinked(layout.buildsDir, layout.subtree(key));
  const [config, old] = [layout.configTree(key), oldTree(options)];
  const kind = await kindOf(old);
  if (kind === 'nothing') return null;
  if (kind !== 'directory' || (await kindOf(config)) !== 'nothing') return trash(old, layout.trashDir, log);
  await rename(old, config);
  return null;
}

/** Beside the tree, for a rename within one directory needs no right on what is renamed. */
function oldTree({ layout, key }: InstallOptions): string {
  return join(layout.subtree(key), '.config.old');
}

function origin({ layout, key }: InstallOptions): string {
  return join(layout.subtree(key), '.config.from');
}

/** A build may have put anything in its place. */
async function lastToCome(options: InstallOptions): Promise<string | null> {
  try {
    return (await readRegular(origin(options), maxNameBytes)).toString('utf8');
  } catch (error) {
    if (isReceiverError(error, 'STORAGE') || ['ENOENT', 'ELOOP'].includes(systemCode(error) ?? ''))
      return null;
    throw error;
  }
}

async function kindOf(path: string): Promise<'nothing' | 'directory' | 'other'> {
  try {
    return (await lstat(path)).isDirectory() ? 'directory' : 'other';
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return 'nothing';
    throw error;
  }
}

async function renameIfThere(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
}

async function trash(old: string, trashDir: string, log: Log): Promise<string | null> {
  try {
    return await moveToTrash(old, trashDir);
  } catch (error) {
    log.warn({ old, err: error }, unremoved);
    return null;
  }
}

/** Never rejects. */
async function removeRest(trashed: string | null, { log = silentLog }: InstallOptions): Promise<void> {
  if (trashed === null) return;
  try {
    await removeTree(trashed);
  } catch (error) {
    log.warn({ trashed, err: error }, unremoved);
  }
}

const unremoved = 'replaced configuration not removed';
