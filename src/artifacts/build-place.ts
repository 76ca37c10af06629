/**
 * Where a finished build lies, as its sidecar says and as it really is. The sidecar may name any place on the
 * machine, so the build must be found below the data directory of its own device, links resolved.
 */
import { realpath } from 'node:fs/promises';
import { sep } from 'node:path';

import { isBelow } from '../disk/contained.js';
import { isReceiverError, quote } from '../errors.js';
import { loadStorage, type StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';
import { artifactsError } from './refusal.js';

export interface BuildPlace {
  readonly configuration: string;
  readonly storage: StorageJson;
  /** The node's name. */
  readonly name: string;
  /** The data directory of the device, without links. */
  readonly dataDir: string;
  /** As the sidecar has it. */
  readonly buildPath: string;
  /** The same without links. */
  readonly realBuildPath: string;
  /** As the sidecar has it: below {@link BuildPlace.buildPath}. */
  readonly firmwarePath: string;
}

/** What the client of Device Builder 1.26 accepts as a node's name, and not longer than a file name can be. */
const clientName = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** Reads the sidecar and checks what it says. Throws `ARTIFACTS`. */
export async function findBuild(paths: Paths, configuration: string): Promise<BuildPlace> {
  const storage = await storageOf(paths.resolveStoragePath(configuration));
  const { name, buildPath, firmwareBinPath: firmwarePath } = storage;
  if (name === null || !clientName.test(name)) {
    throw artifactsError('build_dir_missing', `the sidecar of the build has no usable name: ${quote(name)}`);
  }
  if (buildPath === null || firmwarePath === null) {
    throw artifactsError('build_dir_missing', 'the sidecar of the build does not say where the firmware is');
  }
  const dataDir = await realPlace(paths.resolveDataDir(configuration));
  const realBuildPath = await realPlace(buildPath);
  if (!isBelow(dataDir, realBuildPath)) {
    throw artifactsError('pack_failed', 'the build lies outside its data directory', { dataDir, buildPath });
  }
  if (!isBelow(buildPath, firmwarePath) || firmwarePath.split(sep).includes('..')) {
    throw artifactsError('pack_failed', 'the firmware lies outside the build', { buildPath, firmwarePath });
  }
  return { configuration, storage, name, dataDir, buildPath, realBuildPath, firmwarePath };
}

async function storageOf(path: string): Promise<StorageJson> {
  try {
    return await loadStorage(path);
  } catch (error) {
    if (!isReceiverError(error, 'STORAGE')) throw error;
    throw artifactsError('build_dir_missing', error.message, error.facts, error);
  }
}

async function realPlace(directory: string): Promise<string> {
  try {
    return await realpath(directory);
  } catch (cause) {
    throw artifactsError('build_dir_missing', 'the build directory is missing', { directory }, cause);
  }
}
