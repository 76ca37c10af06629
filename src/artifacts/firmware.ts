/**
 * Finds the files of a build that are useful outside it: the firmware, the platform's other files and the dashboard's
 * downloads.
 *
 * Each base name appears once, because the client's code for browser flashing refuses two. A build must have a
 * firmware: an archive without one once passed for a success. But some toolchains write no file at the sidecar's
 * path; then another image takes its place.
 */
import { basename, dirname, relative, sep } from 'node:path';

import { isBelow } from '../disk/contained.js';
import { quote, ReceiverError, isReceiverError } from '../errors.js';
import { asObject, parseJson } from '../disk/json-file.js';
import { platformRow, type PlatformRow } from '../esphome/platforms.js';
import { readOf } from '../esphome/storage-json.js';
import {
  type BuildFile,
  findInBuild,
  missing,
  type BuildLocation,
  type BuildPaths,
  findBuild,
} from './build-location.js';

export interface Firmware {
  /** The sidecar's path, relative to the build, with forward slashes. */
  readonly name: string;
  /** The file there, or its substitute under another name. */
  readonly file: BuildFile;
}

/** Throws `STORAGE` when it is missing, and `TRAVERSAL` when it lies outside the build. */
export async function findFirmware(place: BuildLocation): Promise<Firmware> {
  const { firmwareBinPath: path, espPlatform } = place.storage;
  if (path === null) throw missing('the sidecar of the build has no firmware path');
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
 * The platform's files in the order of Device Builder 1.26, including the firmware unless it has a substitute. Throws
 * as {@link findFirmware}.
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

/** The public files with plain names in LibreTiny's list, which lies beside the firmware. */
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
 * Checks after exit code 0 that the results are where later readers expect them, by the resolver and never by the
 * output. A compiler that followed another variable, a YAML with a `build_path` of its own, or a link to elsewhere once
 * meant "success", and then a download found nothing, or somebody else's firmware. The firmware's age proves nothing: a
 * build without changes keeps the old file. Returns the firmware or its substitute. Throws `WROTE_ELSEWHERE`; only its
 * facts contain host paths.
 */
export async function verifyBuild(paths: BuildPaths, configuration: string): Promise<BuildFile> {
  try {
    return (await findFirmware(await findBuild(paths, configuration))).file;
  } catch (cause) {
    if (!isReceiverError(cause)) throw cause;
    const message = `ESPHome succeeded but wrote elsewhere: ${cause.message}`;
    throw new ReceiverError('WROTE_ELSEWHERE', message, cause.facts, { cause });
  }
}
