/**
 * The members of the archive that come out of the compiler: the files of the platform, then those that the
 * dashboard offers for download.
 *
 * A base name comes once, because the part of the client that feeds a browser flasher refuses two. The firmware
 * itself is always among them: an archive without it once passed for a success.
 */
import { basename, dirname, join, relative, sep } from 'node:path';

import { readRegular } from '../disk/open-regular.js';
import { quote } from '../errors.js';
import { asObject, parseJson } from '../esphome/json-object.js';
import { platformRow, type PlatformRow } from '../esphome/platforms.js';
import { findBuildFile, type BuildFile } from './build-file.js';
import type { BuildPlace } from './build-place.js';
import { fileMember, type ArtifactMember } from './member.js';
import { artifactsError } from './refusal.js';

/** In the order of Device Builder 1.26. Throws `ARTIFACTS` when the platform is unknown or the firmware is missing. */
export async function firmwareMembers(place: BuildPlace): Promise<readonly ArtifactMember[]> {
  const { storage, name, buildPath, firmwarePath } = place;
  const row = platformRow(storage.espPlatform);
  if (row === null) {
    const platform = quote(storage.espPlatform);
    throw artifactsError('pack_failed', `there is no list of files for the platform ${platform}`);
  }
  const named = (file: string): string => file.replaceAll('{name}', name);
  const firmware = relative(buildPath, firmwarePath).split(sep).join('/');
  const downloads = [...row.downloads, ...(await listedDownloads(place, row, firmware))];
  const candidates = [...row.files.map(named), ...downloads.map((file) => beside(firmware, file)), firmware];

  const members = new Map<string, ArtifactMember>();
  for (const file of candidates) {
    const base = basename(file);
    if (members.has(base) || (base === basename(firmware) && file !== firmware)) continue;
    const found = await findBelow(place, file);
    if (found !== null) members.set(base, fileMember(file, found, file === named(row.program ?? '')));
  }
  if (members.has(basename(firmware))) return [...members.values()];
  return [...members.values(), await standIn(place, row, firmware)];
}

/** A file in the firmware's directory. */
function beside(firmware: string, file: string): string {
  const directory = dirname(firmware);
  return directory === '.' ? file : `${directory}/${file}`;
}

async function findBelow({ realBuildPath }: BuildPlace, file: string): Promise<BuildFile | null> {
  return findBuildFile(realBuildPath, join(realBuildPath, file), file);
}

const maxListBytes = 1024 * 1024;
const maxListed = 64;
const leaf = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;

/** The public files in LibreTiny's list, which lies beside the firmware. What is no plain name is passed over. */
async function listedDownloads(
  place: BuildPlace,
  { downloadList }: PlatformRow,
  firmware: string,
): Promise<readonly string[]> {
  const list = downloadList === undefined ? null : await findBelow(place, beside(firmware, downloadList));
  if (list === null || list.size > maxListBytes) return [];
  const outputs = parseJson(await readRegular(list.path, maxListBytes));
  if (!Array.isArray(outputs)) return [];
  return outputs
    .map((output: unknown) => asObject(output))
    .filter((output) => output?.get('public') === true)
    .map((output) => output?.get('filename'))
    .filter((file): file is string => typeof file === 'string' && leaf.test(file))
    .slice(0, maxListed);
}

/** Another image under the firmware's name, for a toolchain that leaves none there. */
async function standIn(place: BuildPlace, row: PlatformRow, firmware: string): Promise<ArtifactMember> {
  for (const file of row.insteadOfFirmware ?? []) {
    const found = await findBelow(place, beside(firmware, file));
    if (found !== null) return fileMember(firmware, found);
  }
  throw artifactsError('pack_failed', `the firmware ${quote(firmware)} is missing`);
}
