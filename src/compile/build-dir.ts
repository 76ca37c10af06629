/**
 * Makes a device's build directory fit for the next compile, and remembers when the last one may have left damage.
 *
 * A build tool that is killed leaves objects which it does not know of. Ninja takes a half-written precompiled header for
 * finished, and every later compile then fails. SCons, which PlatformIO builds with, is worse: it notes at its end
 * which source an object is of, so one that was compiled just before the kill passes for the object of the
 * configuration before, and going back to that one gives the wrong firmware (seen with SCons 4.9). So a mark stands in
 * the subtree while a compile runs, and whoever finds it there (after a killed receiver, a lost lease, a killed
 * compiler) has everything built anew. The caller holds the lease.
 */
import { lstat, mkdir, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { assertUnlinked, isBelow, isInside } from '../disk/contained.js';
import { isThere } from '../disk/open-regular.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { loadStorage } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';

export interface BuildDir {
  /** The last compile may have left damage, so what was built is gone. */
  readonly isEmptied: boolean;
  /** Ends the use. `trusted`: nothing was killed while it wrote. Removes the build's own temporary directory. */
  close(options: { readonly trusted: boolean }): Promise<void>;
}

const markName = '.unfinished';
/** Never part of a build, whatever a sidecar says. */
const keptNames = ['config', 'storage'];

type BuildPlaces = Pick<Paths, 'buildsDir' | 'layout' | 'resolveDataDir' | 'resolveStoragePath'>;

/**
 * Empties it after damage, marks it, and makes the directories that the environment names. Throws `TRAVERSAL` when a build has put a
 * link in the place of its directory, and system errors.
 */
export async function openBuildDir(
  paths: BuildPlaces,
  configuration: string,
  env: Readonly<Record<string, string>>,
): Promise<BuildDir> {
  const subtree = paths.resolveDataDir(configuration);
  const mark = join(subtree, markName);
  await assertUnlinked(paths.buildsDir, subtree);
  await mkdir(subtree, { recursive: true });
  const isEmptied = await isThere(mark);
  // The mark goes last: whoever is interrupted here leaves it to the next.
  if (isEmptied) await cleanBuildDir(paths, configuration);
  // A build may have planted a link here.
  await removeTree(mark);
  await writeFile(mark, '', { flag: 'wx' });
  const { HOME: home, TMPDIR: temporary } = env;
  for (const directory of [home, temporary]) {
    if (directory !== undefined) await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  return {
    isEmptied,
    async close({ trusted }) {
      if (temporary !== undefined && isBelow(subtree, temporary)) await removeTree(temporary);
      if (trusted) await removeTree(mark);
    },
  };
}

/**
 * Removes what was built and what was learnt about it; the configuration and the sidecar stay. Throws as
 * {@link openBuildDir}.
 */
export async function cleanBuildDir(paths: BuildPlaces, configuration: string): Promise<void> {
  const subtree = paths.resolveDataDir(configuration);
  await assertUnlinked(paths.buildsDir, subtree);
  // A YAML may have put its build beside `build/`; it can only be below the subtree.
  const elsewhere = await buildPathOf(subtree, paths.resolveStoragePath(configuration));
  if (elsewhere !== null && !keptNames.some((name) => overlaps(join(subtree, name), elsewhere))) {
    await removeWhole(elsewhere, paths.layout.trashDir);
  }
  for (const name of ['build', 'idedata']) await removeWhole(join(subtree, name), paths.layout.trashDir);
  await removeTree(join(subtree, markName));
}

/** A removal that is cut short must not leave half of it in its place. */
async function removeWhole(path: string, trashDir: string): Promise<void> {
  const trashed = await moveToTrash(path, trashDir);
  if (trashed !== null) await removeTree(trashed);
}

function overlaps(kept: string, path: string): boolean {
  return kept === path || isBelow(kept, path) || isBelow(path, kept);
}

/** Where the tree lies is the sidecar's to say; null when it does not, or names a place that is not the device's. */
async function buildPathOf(subtree: string, sidecar: string): Promise<string | null> {
  const { buildPath } = await loadStorage(sidecar).catch(() => ({ buildPath: null }));
  return buildPath !== null && (await isOwnDirectory(subtree, buildPath)) ? resolve(buildPath) : null;
}

async function isOwnDirectory(subtree: string, path: string): Promise<boolean> {
  try {
    return (await isInside(subtree, path)) && (await lstat(path)).isDirectory();
  } catch {
    return false;
  }
}
