/**
 * After exit code 0: are the results where everybody will look for them?
 *
 * The resolver is asked, never the output. A compiler that followed another variable, a YAML with a `build_path`
 * of its own, or a link that leads away once meant "success" and then a download that found nothing, or found
 * somebody else's firmware. The firmware's age proves nothing: a build without changes keeps the old file.
 */
import { findBuild } from '../artifacts/build-place.js';
import { findFirmware } from '../artifacts/firmware.js';
import { isReceiverError, ReceiverError } from '../errors.js';
import type { StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';

export interface VerifiedBuild {
  readonly storage: StorageJson;
  /** Absolute, below the subtree. */
  readonly buildPath: string;
  /** Absolute; a regular file below `buildPath`: the firmware, or what stands in for it. */
  readonly firmwarePath: string;
}

/** Throws `WROTE_ELSEWHERE` with a sentence without host paths; the paths are in the facts. */
export async function verifyBuild(
  paths: Pick<Paths, 'buildsDir' | 'parseConfiguration' | 'resolveDataDir' | 'resolveStoragePath'>,
  configuration: string,
): Promise<VerifiedBuild> {
  try {
    const place = await findBuild(paths, configuration);
    const { file } = await findFirmware(place);
    return { storage: place.storage, buildPath: place.path, firmwarePath: file.path };
  } catch (cause) {
    if (!isReceiverError(cause)) throw cause;
    const message = `ESPHome ended well but wrote elsewhere: ${cause.message}`;
    throw new ReceiverError('WROTE_ELSEWHERE', message, cause.facts, { cause });
  }
}
