/**
 * Decides what a finished build sends to its client, in the order and under the names of Device Builder 1.26. Its
 * client unpacks the archive over its own build tree and fails the job when one thing is missing, so what is
 * missing is found out here, where the job can still say so.
 *
 * `host` and native nRF52 builds, which Device Builder compiles and then cannot deliver, get the files that the
 * client demands and ESPHome does not write.
 */
import { quote } from '../errors.js';
import { firmwareOffset, platformRow, type FirmwareOffset } from '../esphome/platforms.js';
import type { StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';
import { findBuild, type BuildPlace } from './build-place.js';
import { findFiles, findFirmware } from './firmware.js';
import { fileMember, type ArtifactMember } from './member.js';
import { metadataMembers } from './metadata.js';
import { artifactsError, refusing } from './refusal.js';

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
  const place = await refusing('build_dir_missing', () => findBuild(paths, configuration));
  const { storage } = place;
  const name = nodeNameOf(storage);
  const members = await refusing('pack_failed', async () => [
    ...(await metadataMembers(paths, place, name)),
    ...(await firmwareMembers(place, name)),
  ]);
  const bytes = members.reduce((sum, member) => sum + member.size, 0);
  if (bytes > maxBytes)
    throw artifactsError('pack_failed', `the files of the build are over ${maxBytes} bytes`);
  return { members, storage, firmwareOffset: firmwareOffset(storage.espPlatform), maxBytes };
}

/** What the client of Device Builder 1.26 accepts as a node's name, and not longer than a file name can be. */
const clientName = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** The node's name, if the sidecar says all that the client needs to know. */
function nodeNameOf({ name, firmwareBinPath }: StorageJson): string {
  if (name === null || !clientName.test(name)) {
    throw artifactsError('build_dir_missing', `the sidecar of the build has no usable name: ${quote(name)}`);
  }
  if (firmwareBinPath !== null) return name;
  throw artifactsError('build_dir_missing', 'the sidecar of the build does not say where the firmware is');
}

/** The files under their places in the tree; one that stands in for the firmware comes last, under its name. */
async function firmwareMembers(place: BuildPlace, name: string): Promise<readonly ArtifactMember[]> {
  const { espPlatform } = place.storage;
  const row = platformRow(espPlatform);
  if (row === null) {
    throw artifactsError('pack_failed', `there is no list of files for the platform ${quote(espPlatform)}`);
  }
  const firmware = await findFirmware(place);
  const files = await findFiles(place, firmware);
  const program = row.program?.replaceAll('{name}', name);
  const members = files.map((file) => fileMember(file, file.name === program));
  if (firmware.file.name === firmware.name) return members;
  return [...members, fileMember({ ...firmware.file, name: firmware.name })];
}
