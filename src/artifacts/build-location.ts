/**
 * Locates a build and its files through its sidecar, for the check after a compile, for the artifacts and for the
 * host's pages. These once had rules of their own, and one refused what another took for a build.
 *
 * A peer's code wrote both the tree and the sidecar's paths, so a peer's build must really lie below its own device's
 * data directory, and only regular files count: a link named `firmware.bin` would otherwise fetch any file of the host.
 */
import { stat, lstat, realpath } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { assertInside } from '../disk/contained.js';
import { ReceiverError, systemCode, isReceiverError, quote } from '../errors.js';
import { loadStorage, type StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';

export interface BuildLocation {
  readonly configuration: string;
  readonly storage: StorageJson;
  /** The data directory of the configuration. */
  readonly dataDir: string;
  /** The build directory. Absolute; it may be reached through links that stay in the data directory. */
  readonly path: string;
}

export type BuildPaths = Pick<
  Paths,
  'buildsDir' | 'parseConfiguration' | 'resolveDataDir' | 'resolveStoragePath'
>;

/** Locates the build. Throws `STORAGE` if it or its sidecar is missing or unusable, and as {@link assertOwn}. */
export async function findBuild(paths: BuildPaths, configuration: string): Promise<BuildLocation> {
  const storage = await readSidecar(paths, configuration);
  if (storage.buildPath === null) throw missing('the sidecar of the build has no build path');
  const path = resolve(storage.buildPath);
  await assertOwn(paths, configuration, path, 'the build directory');
  await withoutPlaces(() => stat(path).catch(throwMissing));
  return { configuration, storage, dataDir: paths.resolveDataDir(configuration), path };
}

/** Throws as {@link findBuild}. */
export async function readSidecar(paths: BuildPaths, configuration: string): Promise<StorageJson> {
  const path = paths.resolveStoragePath(configuration);
  await assertOwn(paths, configuration, path, 'the sidecar of the build');
  return loadStorage(path);
}

/**
 * Throws `TRAVERSAL` unless a peer's path lies in its data directory, and that among the builds, and `STORAGE` when
 * this cannot be determined. The host's own paths can lie anywhere. `what` describes the path in messages.
 */
export async function assertOwn(
  paths: BuildPaths,
  configuration: string,
  path: string,
  what: string,
): Promise<void> {
  if (paths.parseConfiguration(configuration) === null) return;
  const dataDir = paths.resolveDataDir(configuration);
  await withoutPlaces(async () => {
    await assertInside(paths.buildsDir, dataDir, 'the data directory of the build');
    await assertInside(dataDir, path, what);
  });
}

/** Finds a file of the build; `file` is relative to it. Throws as {@link findBuildFile}. */
export async function findInBuild({ path }: BuildLocation, file: string): Promise<BuildFile | null> {
  return findBuildFile(path, join(path, file), file);
}

/** A `STORAGE` error for something missing. */
export function missing(message: string): ReceiverError {
  return new ReceiverError('STORAGE', message, { fault: 'missing' });
}

function throwMissing(error: unknown): never {
  throw systemCode(error) === 'ENOENT' ? missing('the build directory is missing') : error;
}

export interface BuildFile {
  /** Safe to show to a peer: for a file of the tree the path below the build, with forward slashes. */
  readonly name: string;
  /** Absolute, links resolved. */
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly mtimeMs: number;
}

/**
 * Finds the regular file at `path`; null if nothing exists there. Throws `TRAVERSAL` if it lies outside `root`, links
 * resolved, and `STORAGE` for anything but a regular file, or if it cannot be read.
 */
export async function findBuildFile(root: string, path: string, name: string): Promise<BuildFile | null> {
  return withoutPlaces(async () => {
    try {
      const found = await lstat(path);
      await assertInside(root, path, quote(name));
      if (found.isFile()) {
        return { name, path: await realpath(path), size: found.size, mtimeMs: found.mtimeMs };
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

/** Turns a system error of `work` into `STORAGE`: messages travel to the peer, and the system's contain host paths. */
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
