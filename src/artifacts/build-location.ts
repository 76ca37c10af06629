/**
 * Where a build lies, as its sidecar says: the one place that reads this, for the proof after a compile, for what is
 * sent to a client and for the host's pages. Each once judged by rules of its own, and what one took for a build the
 * next one refused. The sidecar may name any place on the machine, so a peer's build must be found below the data
 * directory of its own device, links resolved.
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

type BuildPaths = Pick<Paths, 'buildsDir' | 'parseConfiguration' | 'resolveDataDir' | 'resolveStoragePath'>;

/**
 * Reads the sidecar and checks where it says that the build is. Throws `STORAGE` for what is missing or cannot be
 * used, and as {@link assertOwn}.
 */
export async function findBuild(paths: BuildPaths, configuration: string): Promise<BuildLocation> {
  const storage = await readSidecar(paths, configuration);
  if (storage.buildPath === null) throw missing('the sidecar of the build does not say where the build is');
  const path = resolve(storage.buildPath);
  await assertOwn(paths, configuration, path, 'the build directory');
  await withoutPlaces(() => stat(path).catch(throwMissing));
  return { configuration, storage, dataDir: paths.resolveDataDir(configuration), path };
}

/** The sidecar. Throws as {@link findBuild}. */
export async function readSidecar(paths: BuildPaths, configuration: string): Promise<StorageJson> {
  const path = paths.resolveStoragePath(configuration);
  await assertOwn(paths, configuration, path, 'the sidecar of the build');
  return loadStorage(path);
}

/**
 * A peer's place must lie in its data directory, and that among the builds; what is the host's own may lie anywhere.
 * Throws `TRAVERSAL` where it does not, `STORAGE` where that cannot be told. `what` names the place for people.
 */
export async function assertOwn(
  paths: BuildPaths,
  configuration: string,
  place: string,
  what: string,
): Promise<void> {
  if (paths.parseConfiguration(configuration) === null) return;
  const dataDir = paths.resolveDataDir(configuration);
  await withoutPlaces(async () => {
    await assertInside(paths.buildsDir, dataDir, 'the data directory of the build');
    await assertInside(dataDir, place, what);
  });
}

/** A file of the tree; `file` is relative to it. Throws as {@link findBuildFile}. */
export async function findInBuild({ path }: BuildLocation, file: string): Promise<BuildFile | null> {
  return findBuildFile(path, join(path, file), file);
}

/** A `STORAGE` error that says that something is not there. */
export function missing(message: string): ReceiverError {
  return new ReceiverError('STORAGE', message, { fault: 'missing' });
}

function throwMissing(error: unknown): never {
  throw systemCode(error) === 'ENOENT' ? missing('the build directory is missing') : error;
}

/**
 * Finds a file of a build. The peer's own code wrote the tree and the paths in the sidecar, so only a regular file
 * that really lies below the given root counts: a link named `firmware.bin` would otherwise fetch any file of the
 * host.
 */
export interface BuildFile {
  /** As a peer may read it: below the build where it is one of the tree's, forward slashes. */
  readonly name: string;
  /** Absolute, without links. */
  readonly path: string;
  /** In bytes. */
  readonly size: number;
  readonly mtimeMs: number;
}

/**
 * Looks for `path` below `root`. Null when nothing is there. Throws `TRAVERSAL` for a place outside, after links, and
 * `STORAGE` for a link, a directory or anything else that is no file, or cannot be looked at.
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

/** Makes a system error of `work` one of `STORAGE`: messages travel, and those of the system name places. */
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
