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

import { Header, Pax } from 'tar';

import { isBelow } from '../disk/contained.js';
import { readRegular } from '../disk/open-regular.js';
import { quote, ReceiverError, systemCode } from '../errors.js';
import { manifestFile } from '../esphome/manifest.js';
import { fileName, type FileName } from '../paths/index.js';
import { maxBundleBytes } from '../protocol/transfer.js';

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

/**
 * What a YAML file of ESPHome's refers to, found by looking at its text. It is a guess and no parser: a name that
 * is no file does no harm, since only files that exist are taken, and what is missed is reported by the compiler.
 */
export interface References {
  /** Words that may name a file: the target of an `!include`, a font, an image, a header. */
  readonly files: readonly string[];
  /** Words that may name a directory that is needed as a whole. */
  readonly directories: readonly string[];
  /** Keys of `secrets.yaml`. */
  readonly secrets: readonly string[];
}

/** A quoted or a bare scalar; of a bare one the separators of flow collections are no part. */
const scalar = String.raw`(?:"([^"\n]{1,500})"|'([^'\n]{1,500})'|([^\s"'{}[\],]{1,500}))`;
const anyScalar = new RegExp(scalar, 'g');
const directory = new RegExp(String.raw`(?:!include_dir_\w+|(?:source|path):)\s+${scalar}`, 'g');
const secret = new RegExp(String.raw`!secret\s+${scalar}`, 'g');
const comment = /(?:^|\s)#.*$/gm;

export function referencesOf(yaml: string): References {
  const text = yaml.replace(comment, '');
  return {
    files: scalarsOf(text, anyScalar).filter((word) => /[./]/.test(word)),
    directories: scalarsOf(text, directory),
    secrets: scalarsOf(text, secret),
  };
}

/** The lines of a `secrets.yaml` that define these keys, and the keys that it does not define. */
export function reduceSecrets(
  yaml: string,
  wanted: readonly string[],
): { readonly text: string; readonly missing: readonly string[] } {
  const found = new Set<string>();
  let isKept = false;
  const kept = yaml.split(/(?<=\n)/).filter((line) => {
    const key = /^["']?([^\s"'#:][^"'#:]*)["']?\s*:(?:\s|$)/.exec(line)?.[1]?.trim();
    if (key !== undefined) {
      isKept = wanted.includes(key);
      if (isKept) found.add(key);
    } else if (/^\S/.test(line)) {
      isKept = false;
    }
    return isKept;
  });
  return { text: kept.join(''), missing: wanted.filter((key) => !found.has(key)) };
}

/** What the pattern's scalar was, each once. */
function scalarsOf(text: string, pattern: RegExp): string[] {
  const words = [...text.matchAll(pattern)].map(([, double, single, bare]) => double ?? single ?? bare ?? '');
  return [...new Set(words)];
}

/**
 * A tar archive of a few files that are in memory already, always the same bytes for the same files: no owner, no
 * time, one mode. A receiver knows a repeated bundle by its hash.
 */
const blockBytes = 512;
const epoch = new Date(0);

export interface TarFile {
  /** Relative, forward slashes. */
  readonly path: string;
  readonly bytes: Buffer;
}

export function packTar(files: readonly TarFile[]): Buffer {
  const ending = Buffer.alloc(2 * blockBytes);
  return Buffer.concat([
    ...files.flatMap(({ path, bytes }) => [...headersOf(path, bytes), padded(bytes)]),
    ending,
  ]);
}

/** The header, and before it an extended one when the name is too long for it or not ASCII. */
function headersOf(path: string, bytes: Buffer): Buffer[] {
  const header = new Header({
    ...{ path, size: bytes.length, type: 'File', mode: 0o644 },
    ...{ mtime: epoch, uid: 0, gid: 0 },
  });
  const block = Buffer.alloc(blockBytes);
  const isTooLong = header.encode(block);
  return isTooLong ? [new Pax({ path }).encode(), block] : [block];
}

function padded(bytes: Buffer): Buffer {
  const missing = (blockBytes - (bytes.length % blockBytes)) % blockBytes;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
