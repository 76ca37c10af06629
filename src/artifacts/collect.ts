/**
 * Decides what a finished build sends to its client, in the order and under the names of Device Builder 1.26. Its
 * client unpacks the archive over its own build tree and fails the job when one thing is missing, so what is
 * missing is found out here, where the job can still say so.
 *
 * `host` and native nRF52 builds, which Device Builder compiles and then cannot deliver, get the files that the
 * client demands and ESPHome does not write.
 */
import { firmwareOffset, type FirmwareOffset } from '../esphome/platforms.js';
import type { StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';
import { findBuild } from './build-place.js';
import { firmwareMembers } from './firmware.js';
import type { ArtifactMember } from './member.js';
import { metadataMembers } from './metadata.js';
import { artifactsError } from './refusal.js';

/** The largest archive of the wire: for the packed bytes and for the sum of the files alike. */
export const maxArtifactBytes = 256 * 1024 * 1024;

export interface BuildArtifacts {
  readonly members: readonly ArtifactMember[];
  readonly storage: StorageJson;
  readonly firmwareOffset: FirmwareOffset;
  /** What neither the sum of the members nor the archive may exceed. */
  readonly maxBytes: number;
}

export interface CollectOptions {
  readonly paths: Paths;
  readonly configuration: string;
  /** Default: {@link maxArtifactBytes}. */
  readonly maxBytes?: number | undefined;
}

/**
 * Collects the members of the archive. The caller holds the lock, and no process of the build is left.
 * Throws `ARTIFACTS`, whose facts hold `reason` and `detail` for the wire, and system errors.
 */
export async function collectArtifacts(options: CollectOptions): Promise<BuildArtifacts> {
  const { paths, configuration, maxBytes = maxArtifactBytes } = options;
  const place = await findBuild(paths, configuration);
  const members = [...(await metadataMembers(paths, place)), ...(await firmwareMembers(place))];
  const bytes = members.reduce((sum, member) => sum + member.size, 0);
  if (bytes > maxBytes)
    throw artifactsError('pack_failed', `the files of the build are over ${maxBytes} bytes`);
  const { storage } = place;
  return { members, storage, firmwareOffset: firmwareOffset(storage.espPlatform), maxBytes };
}
