/**
 * After exit code 0: are the results where everybody will look for them?
 *
 * The resolver is asked, never the output. A compiler that followed another variable, a YAML with a `build_path`
 * of its own, or a link that leads away once meant "success" and then a download that found nothing, or found
 * somebody else's firmware. The firmware's age proves nothing: a build without changes keeps the old file.
 */
import { lstat, realpath } from 'node:fs/promises';

import { isBelow, isInside } from '../disk/contained.js';
import { ReceiverError, type Facts } from '../errors.js';
import { loadStorage, type StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';

export interface VerifiedBuild {
  readonly storage: StorageJson;
  /** Absolute, below the subtree, as the sidecar has it. */
  readonly buildPath: string;
  /** Absolute; a regular file below `buildPath`. */
  readonly firmwarePath: string;
}

/** Throws `WROTE_ELSEWHERE` with a sentence without host paths; the paths are in the facts. */
export async function verifyBuild(
  paths: Pick<Paths, 'resolveDataDir' | 'resolveStoragePath'>,
  configuration: string,
): Promise<VerifiedBuild> {
  const subtree = paths.resolveDataDir(configuration);
  const sidecar = paths.resolveStoragePath(configuration);
  const storage = await loadStorage(sidecar).catch((cause: unknown): never => {
    throw wroteElsewhere('the sidecar file is not where it belongs', { sidecar }, cause);
  });
  const { buildPath, firmwareBinPath: firmwarePath } = storage;
  if (buildPath === null || !(await isWithin(subtree, buildPath))) {
    throw wroteElsewhere('its build directory lies outside the data directory of the device', {
      buildPath,
      subtree,
    });
  }
  if (firmwarePath === null || !isBelow(buildPath, firmwarePath)) {
    throw wroteElsewhere('its firmware lies outside the build directory', { firmwarePath, buildPath });
  }
  if (!(await isPlainFileBelow(buildPath, firmwarePath))) {
    throw wroteElsewhere('there is no firmware, or it is a link', { firmwarePath });
  }
  return { storage, buildPath, firmwarePath };
}

function wroteElsewhere(what: string, facts: Facts, cause?: unknown): ReceiverError {
  return new ReceiverError('WROTE_ELSEWHERE', `ESPHome ended well but wrote elsewhere: ${what}`, facts, {
    cause,
  });
}

/** A path through a file or a circle of links is nowhere. */
async function isWithin(root: string, path: string): Promise<boolean> {
  return isInside(root, path).catch(() => false);
}

async function isPlainFileBelow(directory: string, file: string): Promise<boolean> {
  try {
    if (!(await lstat(file)).isFile()) return false;
    return isBelow(await realpath(directory), await realpath(file));
  } catch {
    return false;
  }
}
