/**
 * Makes a bundle of one configuration, as `esphome bundle` does but without ESPHome: the YAML, what it refers to
 * inside its directory, and of the secrets only those that it uses.
 *
 * Nothing outside the configuration directory and nothing behind a link goes along: a bundle leaves this machine.
 */
import { createHash } from 'node:crypto';
import { readdir, realpath } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

import { maxBundleBytes } from '../bundles/assembler.js';
import { isBelow } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { quote, ReceiverError, systemCode } from '../errors.js';
import { manifestFile } from '../esphome/manifest.js';
import { fileName, type FileName } from '../paths/index.js';
import { referencesOf, reduceSecrets } from './references.js';
import { packTar } from './tar-writer.js';

const secretsFile = 'secrets.yaml';
/** All files of a bundle together, as ESPHome has it. */
const maxUnpackedBytes = 500 * 1024 * 1024;

export interface BundleOptions {
  readonly configDir: string;
  /** The YAML, directly in `configDir`. */
  readonly file: string;
  /** The ESPHome that it is meant for, for the receiver's information. Default ''. */
  readonly esphomeVersion?: string;
}

export interface MadeBundle {
  readonly file: FileName;
  /** A gzip-compressed tar archive; the same files give the same bytes. */
  readonly bytes: Buffer;
  /** Lower-case hex. */
  readonly sha256: string;
  /** The paths of its members in order, the manifest left out. */
  readonly members: readonly string[];
}

/**
 * Reads the files and packs them. Throws TRAVERSAL for a name that is no plain one, BUNDLE when the YAML is not
 * there, a secret is not defined or the limits of a bundle are passed, and system errors.
 */
export async function makeBundle(options: BundleOptions): Promise<MadeBundle> {
  const main = fileName(options.file);
  const { files, secrets } = await collect(await realpath(options.configDir), main);
  if (secrets.length > 0) files.set(secretsFile, await secretsOf(options.configDir, secrets));
  const members = [...files]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, bytes]) => ({ path, bytes }));
  const manifest = {
    manifest_version: 1,
    esphome_version: options.esphomeVersion ?? '',
    config_filename: main,
    files: members.map(({ path }) => path),
    has_secrets: secrets.length > 0,
  };
  const tar = packTar([{ path: manifestFile, bytes: Buffer.from(JSON.stringify(manifest)) }, ...members]);
  const bytes = await promisify(gzip)(tar);
  if (bytes.length > maxBundleBytes) throw tooLarge(maxBundleBytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { file: main, bytes, sha256, members: manifest.files };
}

/** The YAML and everything that it refers to, by path relative to `root`; and the secrets that are used. */
async function collect(
  root: string,
  main: FileName,
): Promise<{ readonly files: Map<string, Buffer>; readonly secrets: readonly string[] }> {
  const files = new Map<string, Buffer>();
  const secrets = new Set<string>();
  let total = 0;

  async function add(path: string): Promise<boolean> {
    if (files.has(path) || !isWelcome(path)) return false;
    const bytes = await readPlain(root, path);
    if (bytes === undefined) return false;
    files.set(path, bytes);
    total += bytes.length;
    if (total > maxUnpackedBytes) throw tooLarge(maxUnpackedBytes);
    if (/\.ya?ml$/i.test(path)) await follow(path, bytes.toString());
    return true;
  }

  async function follow(path: string, text: string): Promise<void> {
    const found = referencesOf(text);
    for (const key of found.secrets) secrets.add(key);
    // An include is relative to the file that names it, everything else to the configuration directory.
    const bases = [...new Set([posix.dirname(path), '.'])];
    for (const base of bases) {
      for (const word of found.files) await add(posix.join(base, word));
      for (const word of found.directories) {
        for (const inner of await plainFilesOf(root, posix.join(base, word))) await add(inner);
      }
    }
  }

  if (!(await add(main))) {
    throw new ReceiverError('BUNDLE', `there is no plain file ${quote(main)} in the configuration directory`);
  }
  return { files, secrets: [...secrets] };
}

/** Relative paths inside the directory, none of its parts hidden but perhaps the last, and no secrets as a whole. */
function isWelcome(path: string): boolean {
  const parts = path.split('/');
  const isHidden = parts.slice(0, -1).some((part) => part.startsWith('.'));
  return (
    !isHidden &&
    parts[0] !== '' &&
    !parts.includes('..') &&
    !/[\0\\]/.test(path) &&
    parts.at(-1) !== secretsFile
  );
}

/** The content of a regular file that is reached without any link; undefined for all else. */
async function readPlain(root: string, path: string): Promise<Buffer | undefined> {
  const place = join(root, path);
  try {
    return (await realpath(place)) === place ? await readRegular(place, maxUnpackedBytes) : undefined;
  } catch (error) {
    if (isAbsence(error)) return undefined;
    throw error;
  }
}

/** The files below a directory of the configuration, as paths relative to `root`; none when it is no such directory. */
async function plainFilesOf(root: string, path: string): Promise<readonly string[]> {
  const place = join(root, path);
  if (!isWelcome(`${path}/`) || !isBelow(root, place)) return [];
  try {
    if ((await realpath(place)) !== place) return [];
    const entries = await readdir(place, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile() && !entry.parentPath.includes('__pycache__'))
      .map((entry) => posix.join(path, entry.parentPath.slice(place.length), entry.name))
      .toSorted();
  } catch (error) {
    if (isAbsence(error)) return [];
    throw error;
  }
}

function isAbsence(error: unknown): boolean {
  return (
    ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'EISDIR', 'ELOOP'].includes(systemCode(error) ?? '') ||
    (error instanceof ReceiverError && error.code === 'STORAGE')
  );
}

async function secretsOf(configDir: string, wanted: readonly string[]): Promise<Buffer> {
  const whole = (await readPlain(await realpath(configDir), secretsFile)) ?? Buffer.alloc(0);
  const { text, missing } = reduceSecrets(whole.toString(), wanted);
  if (missing.length === 0) return Buffer.from(text);
  throw new ReceiverError('BUNDLE', `${secretsFile} does not define ${missing.map(quote).join(', ')}`, {
    missing,
  });
}

function tooLarge(bytes: number): ReceiverError {
  return new ReceiverError('BUNDLE', `the bundle would be over ${bytes} bytes`);
}
