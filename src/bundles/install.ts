/**
 * Replaces a device's configuration with a staged bundle by renames: the old tree moves to `.config.old`, the new one
 * takes its place, and the old one is removed. ESPHome's own directories beside it keep their build caches.
 *
 * A receiver can be killed between any two steps, but the state stays unambiguous: while `config` is missing,
 * `.config.old` is the device's configuration; once `config` exists, `.config.old` is garbage. `.config.from` names
 * the staging directory of the latest swap; if that directory is gone, it was installed. The caller holds the lock on
 * the subtree.
 */
import { lstat, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { makeDirectory, syncDirectory } from '../disk/atomic-write.js';
import { assertInside, assertUnlinked } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { isReceiverError, ReceiverError, systemCode } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';

const maxNameBytes = 255;

/** The part of a staged bundle that the installation needs. */
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
 * Renames the bundle's directory to `<subtree>/config`. On failure the old tree is restored and the bundle stays where
 * it was. The bundle's `discard`, and no compile, waits for the removal of the old tree (0.1 s for some hundred
 * files). Does nothing if the bundle is installed already, by a receiver that stopped afterwards. Throws `TRAVERSAL`
 * when the subtree is reached through a link below the builds directory, `STORAGE` when the bundle is gone, and system
 * errors.
 */
export async function installBundle(staged: InstallableBundle, options: InstallOptions): Promise<void> {
  const { layout, key } = options;
  const subtree = layout.subtree(key);
  await assertInside(layout.buildsDir, subtree, 'the build directory');
  await makeDirectory(subtree, 0o777);
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
    throw (await kindOf(staged.directory)) === 'nothing' ? lostBundle(staged.directory, error) : error;
  }
  await syncDirectory(subtree);
  staged.defer(removeTrashed(await settleTrees(options), options));
}

/** The error for a staged bundle that a person has removed, or a power cut has left incomplete. */
export function lostBundle(directory: string, cause?: unknown): ReceiverError {
  const message = 'the uploaded bundle of this job is no longer on the build server; send the job again';
  return new ReceiverError('STORAGE', message, { directory, isLost: true }, { cause });
}

/** Whether the device's configuration is the bundle that was staged in `directory`. Throws system errors. */
export async function isInstalled(directory: string, options: InstallOptions): Promise<boolean> {
  if ((await kindOf(directory)) !== 'nothing') return false;
  return (await readOrigin(options)) === basename(directory);
}

/** Whether a swap in the device's subtree was interrupted. */
export async function isInstallCut(options: InstallOptions): Promise<boolean> {
  return (await kindOf(oldTree(options))) !== 'nothing';
}

/** Completes an interrupted swap: leaves one whole tree, at `config`. Throws as {@link installBundle}. */
export async function repairInstall(options: InstallOptions): Promise<void> {
  await removeTrashed(await settleTrees(options), options);
}

/** Leaves one whole tree at `config`. Returns the other one's path in the trash, if there was one. */
async function settleTrees(options: InstallOptions): Promise<string | null> {
  const { layout, key, log = silentLog } = options;
  await assertUnlinked(layout.buildsDir, layout.subtree(key));
  const [config, old] = [layout.configTree(key), oldTree(options)];
  const kind = await kindOf(old);
  if (kind === 'nothing') return null;
  if (kind !== 'directory' || (await kindOf(config)) !== 'nothing') return trash(old, layout.trashDir, log);
  await rename(old, config);
  return null;
}

/** Beside the tree, because a rename within one directory needs no permission on the renamed tree. */
function oldTree({ layout, key }: InstallOptions): string {
  return join(layout.subtree(key), '.config.old');
}

function origin({ layout, key }: InstallOptions): string {
  return join(layout.subtree(key), '.config.from');
}

/** The bundle that was swapped in last. A build can have replaced the file with anything. */
async function readOrigin(options: InstallOptions): Promise<string | null> {
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
async function removeTrashed(trashed: string | null, { log = silentLog }: InstallOptions): Promise<void> {
  if (trashed === null) return;
  try {
    await removeTree(trashed);
  } catch (error) {
    log.warn({ trashed, err: error }, unremoved);
  }
}

const unremoved = 'replaced configuration not removed';
