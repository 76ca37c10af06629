/**
 * Unpacks a downloaded result into a directory and finds the firmware in it. A receiver is trusted to compile, but not to
 * write elsewhere: any archive results only in regular files below a directory that was empty. The receiver's paths in
 * `storage.json` are mapped to this directory.
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir } from 'node:fs/promises';
import { dirname, join, posix, win32 } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';

import { maxArtifactBytes } from '../artifacts/collect.js';
import { readTar, type TarMember } from '../bundles/tar-reader.js';
import { removeTree } from '../disk/remove.js';
import { isReceiverError, quote, ReceiverError, systemCode } from '../errors.js';
import { loadStorage, type StorageJson } from '../esphome/storage-json.js';

const storageFile = 'storage.json';
const idedataFile = 'idedata.json';
const maxMembers = 20_000;
const maxPathBytes = 1_024;
const pieceBytes = 256 * 1024;
/** The room for headers and padding. */
const overheadBytes = 16 * 1024 * 1024;

export interface UnpackedArtifacts {
  readonly directory: string;
  /** The firmware to flash; for a `host` build the program itself. */
  readonly firmwarePath: string;
  readonly storagePath: string;
  readonly storage: StorageJson;
  /** Null if the receiver's toolchain writes none. */
  readonly idedataPath: string | null;
  /** The relative paths of all files, with forward slashes, in the order of the archive. */
  readonly members: readonly string[];
}

/**
 * Unpacks an archive (its bytes or its path) into an empty or new directory. Throws ARTIFACTS when the archive is damaged,
 * too large, incomplete, or contains anything but regular files; STATE when the directory is not empty; and system errors.
 * After an error, no unpacked file is left.
 */
export async function unpackArtifacts(
  archive: Buffer | string,
  directory: string,
): Promise<UnpackedArtifacts> {
  await mkdir(directory, { recursive: true });
  if ((await readdir(directory)).length > 0) {
    throw new ReceiverError('STATE', 'the directory for the artifacts must be empty', { directory });
  }
  try {
    const members = await unpack(archive, directory);
    return await describe(directory, members);
  } catch (error) {
    await removeTree(directory);
    throw toArtifactsError(error);
  }
}

async function unpack(archive: Buffer | string, directory: string): Promise<readonly string[]> {
  const source = typeof archive === 'string' ? createReadStream(archive) : Readable.from([archive]);
  const members: string[] = [];
  let failure: unknown;
  const consume = async (pieces: AsyncIterable<Buffer>): Promise<void> => {
    for await (const member of readTar(limited(pieces))) {
      checkName(member);
      if (members.length >= maxMembers) throw refused(`it contains more than ${maxMembers} files`);
      members.push(member.path);
      await write(member, join(directory, member.path));
    }
  };
  try {
    await pipeline(source, createGunzip({ chunkSize: pieceBytes }), (pieces: AsyncIterable<Buffer>) =>
      consume(pieces).catch((error: unknown) => {
        failure = error;
        throw error;
      }),
    );
  } catch (error) {
    // For an error in the last step, the pipeline can report only that the step before was aborted.
    throw failure ?? error;
  }
  return members;
}

async function* limited(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const piece of pieces) {
    bytes += piece.length;
    if (bytes > maxArtifactBytes + overheadBytes)
      throw refused(`it unpacks to more than ${maxArtifactBytes} bytes`);
    yield piece;
  }
}

function checkName({ path, kind }: TarMember): void {
  const parts = path.split('/');
  const isPlain = parts.every((part) => part !== '' && part !== '.' && part !== '..');
  if (
    kind === 'file' &&
    isPlain &&
    !/[\p{Cc}\p{Cs}\\:]/u.test(path) &&
    Buffer.byteLength(path) <= maxPathBytes
  )
    return;
  throw refused(`the member ${quote(path)} is not a regular file with a relative path`);
}

async function write(member: TarMember, place: string): Promise<void> {
  await mkdir(dirname(place), { recursive: true });
  const handle = await open(place, 'wx', member.executable ? 0o755 : 0o644);
  try {
    for await (const piece of member.body()) await handle.writeFile(piece);
  } finally {
    await handle.close();
  }
}

async function describe(directory: string, members: readonly string[]): Promise<UnpackedArtifacts> {
  if (!members.includes(storageFile)) throw refused(`${storageFile} is missing`);
  const storagePath = join(directory, storageFile);
  const storage = await loadStorage(storagePath);
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]*$/.test(storage.name ?? '')) {
    throw refused(`the device name ${quote(storage.name)} is invalid`);
  }
  const firmware = firmwareMember(storage);
  if (!members.includes(firmware)) throw refused(`the firmware ${quote(firmware)} is missing`);
  return {
    directory,
    firmwarePath: join(directory, firmware),
    storagePath,
    storage,
    idedataPath: members.includes(idedataFile) ? join(directory, idedataFile) : null,
    members,
  };
}

/** The firmware's path below the receiver's build directory. The receiver can run on another operating system. */
function firmwareMember({ buildPath, firmwareBinPath }: StorageJson): string {
  if (buildPath === null || firmwareBinPath === null) throw refused(`${storageFile} names no build path`);
  const flavour = /^[A-Za-z]:[\\/]|^\\\\/.test(buildPath) ? win32 : posix;
  return flavour.relative(buildPath, firmwareBinPath).replaceAll(flavour.sep, '/');
}

/** In an empty directory, only the archive's names can cause these system errors. */
const nameErrors = ['EEXIST', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG'];

function toArtifactsError(error: unknown): unknown {
  const code = systemCode(error) ?? '';
  if (isReceiverError(error, 'BUNDLE') || isReceiverError(error, 'STORAGE'))
    return because(error.message, error);
  if (code.startsWith('Z_')) return because('it is not a complete gzip stream', error);
  return nameErrors.includes(code) ? because(`it contains an unusable name (${code})`, error) : error;
}

function because(why: string, cause: unknown): ReceiverError {
  return new ReceiverError('ARTIFACTS', `archive refused: ${why}`, {}, { cause });
}

function refused(why: string): ReceiverError {
  return because(why, undefined);
}
