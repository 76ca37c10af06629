/**
 * Prepares a device's build directory for the next compile, and records that a compile may have damaged it.
 *
 * A killed build tool leaves objects that it has no record of. Ninja takes a half-written precompiled header for
 * finished, and every later compile fails. SCons, PlatformIO's build tool, is worse: it records at its end which
 * source an object is from, so an object compiled just before the kill passes for that of the previous
 * configuration, and going back to that one gives the wrong firmware (seen with SCons 4.9). So a marker file exists
 * while a compile runs. The next compile that finds it (after a killed receiver, a lost lease, a killed compiler)
 * rebuilds everything. The caller holds the lease.
 */
import { lstat, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { makeDirectory } from '../disk/atomic-write.js';
import { assertUnlinked, isBelow, isInside } from '../disk/contained.js';
import { isThere } from '../disk/open-regular.js';
import { type PublishGuard, openTrash, removeTree } from '../disk/remove.js';
import { loadStorage } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';

export type BuildDir = Awaited<ReturnType<typeof openBuildDir>>;

const markName = '.unfinished';
/** Never part of a build, whatever the sidecar says. */
const keptNames = ['config', 'storage'];

type BuildPlaces = Pick<Paths, 'buildsDir' | 'layout' | 'resolveDataDir' | 'resolveStoragePath'>;

/**
 * Cleans the directory after damage, marks it, and creates the directories that the environment names. Throws
 * `TRAVERSAL` when a build has replaced its directory with a link, and system errors.
 */
export async function openBuildDir(
  paths: BuildPlaces,
  configuration: string,
  env: Readonly<Record<string, string>>,
  lease: PublishGuard,
) {
  const subtree = paths.resolveDataDir(configuration);
  const mark = join(subtree, markName);
  await assertUnlinked(paths.buildsDir, subtree);
  await makeDirectory(subtree, 0o777);
  const isEmptied = await isThere(mark);
  if (isEmptied) await cleanBuildDir(paths, configuration, lease);
  // A build may have planted a link here.
  await removeTree(mark);
  await writeFile(mark, '', { flag: 'wx' });
  const { HOME: home, TMPDIR: temporary } = env;
  for (const directory of [home, temporary]) {
    if (directory !== undefined) await makeDirectory(directory);
  }
  return {
    /** Whether the build was removed, because the last compile may have damaged it. */
    isEmptied,
    /** Removes the build's own temporary directory. `trusted`: nothing was killed while it wrote. */
    async close({ trusted }: { readonly trusted: boolean }): Promise<void> {
      if (temporary !== undefined && isBelow(subtree, temporary)) await removeTree(temporary);
      if (trusted) await removeTree(mark);
    },
  };
}

/** Removes the build and its metadata; the configuration and the sidecar stay. Throws as {@link openBuildDir}. */
export async function cleanBuildDir(
  paths: BuildPlaces,
  configuration: string,
  lease: PublishGuard,
): Promise<void> {
  const trash = openTrash(paths.layout.trashDir);
  try {
    await setAsideBuild(paths, configuration, (path) => trash.move(path, lease));
  } finally {
    await trash.empty();
  }
}

/** Calls `move` for each part that {@link cleanBuildDir} removes, so that an interrupted removal leaves no half tree. */
export async function setAsideBuild(
  paths: BuildPlaces,
  configuration: string,
  move: (path: string) => Promise<unknown>,
): Promise<void> {
  const subtree = paths.resolveDataDir(configuration);
  await assertUnlinked(paths.buildsDir, subtree);
  // A YAML can place its build beside `build/`, but only below the subtree.
  const elsewhere = await buildPathOf(subtree, paths.resolveStoragePath(configuration));
  if (elsewhere !== null && !keptNames.some((name) => overlaps(join(subtree, name), elsewhere))) {
    await move(elsewhere);
  }
  // The mark goes last: an interrupted run leaves it to the next.
  for (const name of ['build', 'idedata', markName]) await move(join(subtree, name));
}

function overlaps(kept: string, path: string): boolean {
  return kept === path || isBelow(kept, path) || isBelow(path, kept);
}

/** The sidecar's build path; null if it names none, or one outside the device's subtree. */
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
