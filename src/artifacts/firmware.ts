/**
 * The files of a build that are of use outside it: its firmware, what its platform has besides, and what the
 * dashboard offers for download.
 *
 * A base name comes once, because the part of the client that feeds a browser flasher refuses two. A build without
 * a firmware is none: an archive without it once passed for a success. But a toolchain may write no file where the
 * sidecar says, and then another image stands in.
 */
import { basename, dirname, relative, sep } from 'node:path';

import { isBelow } from '../disk/contained.js';
import { quote, ReceiverError, isReceiverError } from '../errors.js';
import { asObject, parseJson } from '../disk/json.js';
import { platformRow, type PlatformRow } from '../esphome/platforms.js';
import { readOf, type StorageJson } from '../esphome/storage-json.js';
import type { Paths } from '../paths/index.js';
import { type BuildFile, findInBuild, missing, type BuildLocation, findBuild } from './build-location.js';

export interface Firmware {
  /** Where the sidecar says that it is: below the build, forward slashes. */
  readonly name: string;
  /** What is there, or stands in for it under a name of its own. */
  readonly file: BuildFile;
}

/** Throws `STORAGE` when there is none, and `TRAVERSAL` when it lies outside the build. */
export async function findFirmware(place: BuildLocation): Promise<Firmware> {
  const { firmwareBinPath: path, espPlatform } = place.storage;
  if (path === null) throw missing('the sidecar of the build does not say where the firmware is');
  if (!isBelow(place.path, path)) {
    const facts = { buildPath: place.path, path };
    throw new ReceiverError('TRAVERSAL', 'the firmware lies outside the build', facts);
  }
  const name = relative(place.path, path).split(sep).join('/');
  const others = platformRow(espPlatform)?.insteadOfFirmware ?? [];
  for (const candidate of [name, ...others.map((other) => beside(name, other))]) {
    const file = await findInBuild(place, candidate);
    if (file !== null) return { name, file };
  }
  throw missing(`the firmware ${quote(name)} is missing`);
}

/**
 * All files that the platform has, the firmware among them unless another one stands in. In the order of Device
 * Builder 1.26. Throws as {@link findFirmware}.
 */
export async function findFiles(
  place: BuildLocation,
  { name, file }: Firmware,
): Promise<readonly BuildFile[]> {
  const row = platformRow(place.storage.espPlatform);
  if (row === null) return [file];
  const named = row.files.map((each) => each.replaceAll('{name}', place.storage.name ?? ''));
  const downloads = [...row.downloads, ...(await listedDownloads(place, row, name))];
  const found = new Map<string, BuildFile>();
  for (const candidate of [...named, ...downloads.map((each) => beside(name, each)), name]) {
    const base = basename(candidate);
    if (found.has(base) || (base === basename(name) && candidate !== name)) continue;
    const present = await findInBuild(place, candidate);
    if (present !== null) found.set(base, present);
  }
  return [...found.values()];
}

/** A file in the firmware's directory. */
function beside(firmware: string, file: string): string {
  const directory = dirname(firmware);
  return directory === '.' ? file : `${directory}/${file}`;
}

const maxListBytes = 1024 * 1024;
const maxListed = 64;
const leaf = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;

/** The public files in LibreTiny's list, which lies beside the firmware. What is no plain name is passed over. */
async function listedDownloads(
  place: BuildLocation,
  { downloadList }: PlatformRow,
  firmware: string,
): Promise<readonly string[]> {
  const list = downloadList === undefined ? null : await findInBuild(place, beside(firmware, downloadList));
  if (list === null || list.size > maxListBytes) return [];
  const outputs = parseJson(await readOf(quote(list.name), list.path, maxListBytes));
  if (!Array.isArray(outputs)) return [];
  return outputs
    .map((output: unknown) => asObject(output))
    .filter((output) => output?.get('public') === true)
    .map((output) => output?.get('filename'))
    .filter((file): file is string => typeof file === 'string' && leaf.test(file))
    .slice(0, maxListed);
}

/**
 * After exit code 0: are the results where everybody will look for them?
 *
 * The resolver is asked, never the output. A compiler that followed another variable, a YAML with a `build_path`
 * of its own, or a link that leads away once meant "success" and then a download that found nothing, or found
 * somebody else's firmware. The firmware's age proves nothing: a build without changes keeps the old file.
 */
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
