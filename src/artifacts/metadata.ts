/**
 * The first members of the archive: what ESPHome notes about a build, unchanged to the byte. The client finds its
 * way through the receiver's absolute paths by itself, and a rewritten file would mislead it.
 */
import { toolchainRow, type Need } from '../esphome/platforms.js';
import type { Paths } from '../paths/index.js';
import { findBuildFile, type BuildFile } from './build-file.js';
import { findInBuild, type BuildPlace } from './build-place.js';
import { bytesMember, fileMember, type ArtifactMember } from './member.js';
import { artifactsError } from './refusal.js';

/** A validated configuration that is this much older than the sidecar belongs to an earlier one. */
const staleAfterMs = 60_000;

/**
 * In the order of Device Builder 1.26. `name` is the node's. Throws `ARTIFACTS` when a required one is missing, and
 * as {@link findBuildFile}.
 */
export async function metadataMembers(
  paths: Paths,
  place: BuildPlace,
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

/** The newer of the two formats, under the name of its format, unless it is a leftover. */
async function validatedMember(
  paths: Paths,
  { configuration, dataDir }: BuildPlace,
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
