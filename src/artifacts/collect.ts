/**
 * Collects the files of a finished build for its client, in the order and under the names of Device Builder 1.26. The
 * client unpacks the archive over its own build tree and fails the job when a file is missing, so this module checks
 * for missing files while the job can still report them.
 *
 * `host` and native nRF52 builds, which Device Builder compiles but cannot deliver, get the files that the client
 * requires and ESPHome does not write.
 */
import { quote, isReceiverError, ReceiverError, type Facts } from '../errors.js';
import {
  firmwareOffset,
  platformRow,
  type FirmwareOffset,
  toolchainRow,
  type Need,
} from '../esphome/platforms.js';
import type { StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';
import {
  findBuild,
  type BuildLocation,
  type BuildFile,
  findBuildFile,
  findInBuild,
} from './build-location.js';
import { findFiles, findFirmware } from './firmware.js';

/** The protocol's limit for an archive: applies to the packed bytes and to the sum of the files. */
export const maxArtifactBytes = 256 * 1024 * 1024;

export interface BuildArtifacts {
  readonly members: readonly ArtifactMember[];
  readonly storage: StorageJson;
  readonly firmwareOffset: FirmwareOffset;
  /** Limit for the sum of the members and for the archive. */
  readonly maxBytes: number;
}

/**
 * Collects the members of the archive. The caller holds the lock, and the build's processes have ended. Throws
 * `ARTIFACTS`, see {@link artifactsError}, and system errors.
 */
export async function collectArtifacts(options: {
  readonly paths: Paths;
  readonly configuration: string;
  readonly maxBytes?: number;
}): Promise<BuildArtifacts> {
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

/** The node names that Device Builder 1.26's client accepts, limited to the length of a file name. */
const clientName = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

/** Returns the node's name, and checks that the sidecar holds all that the client needs. */
function nodeNameOf({ name, firmwareBinPath }: StorageJson): string {
  if (name === null || !clientName.test(name)) {
    throw artifactsError('build_dir_missing', `the sidecar of the build has no usable name: ${quote(name)}`);
  }
  if (firmwareBinPath !== null) return name;
  throw artifactsError('build_dir_missing', 'the sidecar of the build has no firmware path');
}

/** The files under their paths in the tree. A substitute for the firmware comes last, under the firmware's name. */
async function firmwareMembers(place: BuildLocation, name: string): Promise<readonly ArtifactMember[]> {
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

export interface ArtifactMember {
  /** In the archive: relative, forward slashes. */
  readonly name: string;
  /** The path of a file, links resolved, or the bytes themselves. */
  readonly source: string | Buffer;
  /** In bytes. */
  readonly size: number;
  /** Whether it is a program to run. */
  readonly executable: boolean;
}

function fileMember({ name, path, size }: BuildFile, executable = false): ArtifactMember {
  return { name, source: path, size, executable };
}

export function bytesMember(name: string, bytes: Buffer): ArtifactMember {
  return { name, source: bytes, size: bytes.length, executable: false };
}

/** A validated configuration that is this much older than the sidecar belongs to an earlier build. */
const staleAfterMs = 60_000;

/**
 * The first members: ESPHome's metadata of the build, byte for byte, because the client itself translates the
 * receiver's absolute paths and a rewritten file would mislead it. `name` is the node's. Throws `ARTIFACTS` when a
 * required file is missing, and as {@link findBuildFile}.
 */
async function metadataMembers(
  paths: Paths,
  place: BuildLocation,
  name: string,
): Promise<readonly ArtifactMember[]> {
  const { configuration, storage, dataDir } = place;
  const needs = toolchainRow(storage.toolchain);
  const idedataPath = paths.resolveIdedataPath(configuration, { name, toolchain: storage.toolchain });
  const idedata = await findBuildFile(dataDir, idedataPath, 'idedata.json');
  const ini = await findInBuild(place, 'platformio.ini');
  const info = await findInBuild(place, 'build_info.json');
  return [
    bytesMember('storage.json', storage.raw),
    ...byNeed('idedata.json', idedata, needs.idedata, '{}'),
    ...byNeed('platformio.ini', ini, needs.platformioIni, ''),
    ...byNeed('build_info.json', info, 'optional', ''),
    ...(await validatedMember(paths, place)),
  ];
}

function byNeed(name: string, file: BuildFile | null, need: Need, empty: string): readonly ArtifactMember[] {
  if (file !== null) return [fileMember(file)];
  if (need === 'required') throw artifactsError('build_dir_missing', `the build has no ${name}`);
  return need === 'supplied' ? [bytesMember(name, Buffer.from(empty))] : [];
}

/** The newer of the two formats, under its format's name, unless it is stale. */
async function validatedMember(
  paths: Paths,
  { configuration, dataDir }: BuildLocation,
): Promise<readonly ArtifactMember[]> {
  const sidecar = await findBuildFile(dataDir, paths.resolveStoragePath(configuration), 'storage.json');
  let newest: BuildFile | null = null;
  for (const format of ['json', 'yaml'] as const) {
    const path = paths.resolveValidatedPath(configuration, format);
    const file = await findBuildFile(dataDir, path, `validated.${format}`);
    if (file !== null && !(newest && newest.mtimeMs >= file.mtimeMs)) newest = file;
  }
  if (newest === null || sidecar === null) return [];
  return sidecar.mtimeMs - newest.mtimeMs > staleAfterMs ? [] : [fileMember(newest)];
}

/** The reasons of the peer link (Device Builder 1.26). */
export type ArtifactsFault = 'build_dir_missing' | 'pack_failed';

const maxDetailLength = 256;

/**
 * An `ARTIFACTS` error whose facts hold `reason` and `detail` for the peer link. The text goes to the peer, so it must
 * not contain a host path.
 */
export function artifactsError(
  reason: ArtifactsFault,
  text: string,
  facts: Facts = {},
  cause?: unknown,
): ReceiverError {
  const detail = text.slice(0, maxDetailLength);
  return new ReceiverError('ARTIFACTS', detail, { ...facts, reason, detail }, { cause });
}

/** Turns a `STORAGE` error of `work` into `ARTIFACTS` with `reason`, and `TRAVERSAL` into `pack_failed`. */
export async function refusing<T>(reason: ArtifactsFault, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const isOutside = isReceiverError(error, 'TRAVERSAL');
    if (!isOutside && !isReceiverError(error, 'STORAGE')) throw error;
    throw artifactsError(isOutside ? 'pack_failed' : reason, error.message, error.facts, error);
  }
}
