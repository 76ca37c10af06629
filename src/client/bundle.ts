/**
 * Creates the bundle of one configuration, like `esphome bundle` but without ESPHome: the YAML, the files in its directory
 * that it refers to, and only the secrets that it uses. A bundle leaves this machine, so it contains nothing from outside
 * of the configuration directory and nothing behind a link.
 */
import { createHash } from 'node:crypto';
import { realpath } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';

import { bytesMember } from '../artifacts/collect.js';
import { tarOf } from '../artifacts/pack.js';
import { isBelow } from '../disk/contained.js';
import { decodeName, entriesIn, onDisk, type DirectoryEntry } from '../disk/names.js';
import { readRegular } from '../disk/open-regular.js';
import { quote, ReceiverError, systemCode } from '../errors.js';
import { manifestFile } from '../esphome/manifest.js';
import { fileName, type FileName } from '../paths/index.js';
import { maxBundleBytes } from '../protocol/transfer.js';

const secretsFile = 'secrets.yaml';
/** ESPHome's limit for all files of a bundle together. */
const maxUnpackedBytes = 500 * 1024 * 1024;

export interface BundleOptions {
  readonly configDir: string;
  /** The YAML, directly in `configDir`. */
  readonly file: string;
  /** The ESPHome version of the configuration, as information for the receiver. Default: empty. */
  readonly esphomeVersion?: string;
}

export interface MadeBundle {
  readonly file: FileName;
  /** A gzip-compressed tar archive. The same files give the same bytes, by which a receiver recognises them. */
  readonly bytes: Buffer;
  /** Lower-case hex. */
  readonly sha256: string;
  /** The paths of its members in order, without the manifest. */
  readonly members: readonly string[];
}

/**
 * Reads and packs the files. Throws TRAVERSAL for an invalid name, BUNDLE for a missing YAML, an undefined secret or a
 * bundle over its limits, and system errors.
 */
export async function makeBundle(options: BundleOptions): Promise<MadeBundle> {
  const main = fileName(options.file);
  const { files, secrets } = await collect(await realpath(options.configDir), main);
  if (secrets.length > 0) files.set(secretsFile, await secretsOf(options.configDir, secrets));
  const members = [...files]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, bytes]) => bytesMember(path, bytes));
  const manifest = {
    manifest_version: 1,
    esphome_version: options.esphomeVersion ?? '',
    config_filename: main,
    files: members.map(({ name }) => name),
    has_secrets: secrets.length > 0,
  };
  const first = bytesMember(manifestFile, Buffer.from(JSON.stringify(manifest)));
  const bytes = await promisify(gzip)(await buffer(tarOf([first, ...members], true)));
  if (bytes.length > maxBundleBytes) throw tooLarge(maxBundleBytes);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { file: main, bytes, sha256, members: manifest.files };
}

/** The YAML and all files that it refers to, by path relative to `root`, and the names of its secrets. */
async function collect(
  root: string,
  main: FileName,
): Promise<{ readonly files: Map<string, Buffer>; readonly secrets: readonly string[] }> {
  const files = new Map<string, Buffer>();
  const secrets = new Set<string>();
  let total = 0;

  async function add(path: string): Promise<boolean> {
    if (files.has(path) || !isAllowed(path)) return false;
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
    // An include is relative to its file, everything else to the configuration directory.
    const bases = [...new Set([posix.dirname(path), '.'])];
    for (const base of bases) {
      for (const word of found.files) await add(posix.join(base, word));
      for (const word of found.directories) {
        for (const inner of await plainFilesOf(root, posix.join(base, word))) await add(inner);
      }
    }
  }

  if (!(await add(main))) {
    throw new ReceiverError('BUNDLE', `the configuration directory has no regular file ${quote(main)}`);
  }
  return { files, secrets: [...secrets] };
}

/** Whether a path is relative, inside the directory, in no hidden directory, and not the whole secrets file. */
function isAllowed(path: string): boolean {
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

/** The content of a regular file whose path has no link; otherwise undefined. */
async function readPlain(root: string, path: string): Promise<Buffer | undefined> {
  const absolute = join(root, path);
  try {
    return (await isUnlinked(absolute)) ? await readRegular(absolute, maxUnpackedBytes) : undefined;
  } catch (error) {
    if (isAbsence(error)) return undefined;
    throw error;
  }
}

/** The regular files below a directory, as paths relative to `root`; empty for anything else, such as a link. */
async function plainFilesOf(root: string, path: string): Promise<readonly string[]> {
  const absolute = join(root, path);
  if (!isAllowed(`${path}/`) || !isBelow(root, absolute)) return [];
  try {
    if (!(await isUnlinked(absolute))) return [];
  } catch (error) {
    if (isAbsence(error)) return [];
    throw error;
  }
  const files: string[] = [];
  const waiting = [path];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    for (const { name, isDirectory, isFile } of await listed(join(root, directory))) {
      if (isFile) files.push(posix.join(directory, name));
      if (isDirectory && name !== '__pycache__') waiting.push(posix.join(directory, name));
    }
  }
  return files.toSorted();
}

/** The entries of a directory; none if it is something else. */
async function listed(directory: string): Promise<readonly DirectoryEntry[]> {
  const entries: DirectoryEntry[] = [];
  try {
    for await (const entry of entriesIn(directory)) entries.push(entry);
  } catch (error) {
    if (!isAbsence(error)) throw error;
  }
  return entries;
}

/** Whether no part of an existing path is a link. */
async function isUnlinked(absolute: string): Promise<boolean> {
  return decodeName(await realpath(onDisk(absolute), 'buffer')) === absolute;
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
  const message = `${secretsFile} does not define ${missing.map(quote).join(', ')}`;
  throw new ReceiverError('BUNDLE', message, { missing });
}

function tooLarge(bytes: number): ReceiverError {
  return new ReceiverError('BUNDLE', `bundle too large: at most ${bytes} bytes are allowed`);
}

export interface References {
  /** Words that can name a file: the target of an `!include`, a font, an image, a header. */
  readonly files: readonly string[];
  /** Words that can name a directory, which is included as a whole. */
  readonly directories: readonly string[];
  /** Keys of `secrets.yaml`. */
  readonly secrets: readonly string[];
}

/** A quoted or a bare scalar; a bare one excludes the separators of flow collections. */
const scalar = String.raw`(?:"([^"\n]{1,500})"|'([^'\n]{1,500})'|([^\s"'{}[\],]{1,500}))`;
const anyScalar = new RegExp(scalar, 'g');
const directory = new RegExp(String.raw`(?:!include_dir_\w+|(?:source|path):)\s+${scalar}`, 'g');
const secret = new RegExp(String.raw`!secret\s+${scalar}`, 'g');
const comment = /(?:^|\s)#.*$/gm;

/**
 * The references of an ESPHome YAML, guessed from its text without a parser: a word that is not a file does no harm,
 * because only existing files are added, and the compiler reports a file that was missed.
 */
export function referencesOf(yaml: string): References {
  const text = yaml.replace(comment, '');
  return {
    files: scalarsOf(text, anyScalar).filter((word) => /[./]/.test(word)),
    directories: scalarsOf(text, directory),
    secrets: scalarsOf(text, secret),
  };
}

/** The lines of a `secrets.yaml` that define the wanted keys, and the keys that are missing. */
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

/** The distinct scalars that the pattern matches. */
function scalarsOf(text: string, pattern: RegExp): string[] {
  const words = [...text.matchAll(pattern)].map(([, double, single, bare]) => double ?? single ?? bare ?? '');
  return [...new Set(words)];
}
