/**
 * Where a build lies, as its sidecar says: the one place that reads this, for the proof after a compile, for what is
 * sent to a client and for the host's pages. Each once judged by rules of its own, and what one took for a build the
 * next one refused. The sidecar may name any place on the machine, so a peer's build must be found below the data
 * directory of its own device, links resolved.
 */
import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { assertInside } from '../disk/contained.js';
import { ReceiverError, systemCode } from '../errors.js';
import { loadStorage, type StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';
import { findBuildFile, withoutPlaces, type BuildFile } from './build-file.js';

export interface BuildPlace {
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
export async function findBuild(paths: BuildPaths, configuration: string): Promise<BuildPlace> {
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
export async function findInBuild({ path }: BuildPlace, file: string): Promise<BuildFile | null> {
  return findBuildFile(path, join(path, file), file);
}

/** A `STORAGE` error that says that something is not there. */
export function missing(message: string): ReceiverError {
  return new ReceiverError('STORAGE', message, { fault: 'missing' });
}

function throwMissing(error: unknown): never {
  throw systemCode(error) === 'ENOENT' ? missing('the build directory is missing') : error;
}
