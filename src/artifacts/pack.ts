/**
 * Writes the archive that a client downloads: a gzip tar, streamed and hashed on the way. Compression runs off the
 * event loop so as not to delay a peer's heartbeat, and at its fastest level, because firmware hardly compresses.
 */
import { createHash } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';

import type { Header as TarHeader } from 'tar';

import { encodeName } from '../disk/names.js';
import { openRegular } from '../disk/open-regular.js';
import { quote } from '../errors.js';
import type { FirmwareOffset } from '../esphome/platforms.js';
import { type BuildArtifacts, type ArtifactMember, artifactsError, refusing } from './collect.js';

export interface ArtifactFacts {
  /** Of the archive, a gzip tar. */
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly firmwareOffset: FirmwareOffset;
}

const blockBytes = 512;
const readBytes = 256 * 1024;

/**
 * Packs the members into a new file. Throws `ARTIFACTS` when a member changed since it was collected or the archive
 * is too large, and system errors; the new file is then removed.
 */
export async function packArtifacts(build: BuildArtifacts, destination: string): Promise<ArtifactFacts> {
  const hash = createHash('sha256');
  let bytes = 0;
  async function* measure(packed: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of packed) {
      bytes += piece.length;
      if (bytes > build.maxBytes) {
        throw artifactsError('pack_failed', `the archive is over ${build.maxBytes} bytes`);
      }
      hash.update(piece);
      yield piece;
    }
  }
  const file = await open(destination, 'wx', 0o600);
  try {
    const gzip = createGzip({ level: 1, chunkSize: readBytes });
    await pipeline(tarOf(build.members), gzip, measure, file.createWriteStream({ flush: true }));
  } catch (error) {
    await rm(destination, { force: true });
    throw error;
  }
  return Object.freeze({ bytes, sha256: hash.digest('hex'), firmwareOffset: build.firmwareOffset });
}

/** A tar archive; `extended` allows names that are too long or not ASCII, which not every client can read. */
export async function* tarOf(members: readonly ArtifactMember[], extended = false): AsyncGenerator<Buffer> {
  for (const member of members) {
    yield await headerOf(member, extended);
    if (typeof member.source === 'string') yield* contentOf(member, member.source);
    else yield member.source;
    yield Buffer.alloc((blockBytes - (member.size % blockBytes)) % blockBytes);
  }
  yield Buffer.alloc(2 * blockBytes);
}

/** Owner, group and time are constant, so that equal builds make equal archives. */
async function headerOf({ name, size, executable }: ArtifactMember, extended: boolean): Promise<Buffer> {
  // Loaded by the first build and not at a receiver's start.
  const { Header, Pax } = await import('tar');
  const header = new Header({
    ...{ path: name, size, type: 'File', mode: executable ? 0o755 : 0o644 },
    ...{ uid: 0, gid: 0, mtime: new Date(0) },
  });
  const block = Buffer.alloc(blockBytes);
  if (!header.encode(block)) return block;
  if (extended) {
    const encoded = encodeName(name);
    const isText = encoded.toString() === name;
    return Buffer.concat([isText ? new Pax({ path: name }).encode() : binaryPax(encoded, Header), block]);
  }
  throw artifactsError('pack_failed', `the name ${quote(name)} is too long for a tar header`);
}

/** The extended header for a path that is not UTF-8, as Python writes it. */
function binaryPax(path: Buffer, Header: typeof TarHeader): Buffer {
  const records = Buffer.concat([paxRecord('hdrcharset', Buffer.from('BINARY')), paxRecord('path', path)]);
  const header = new Header({ path: 'PaxHeader', type: 'ExtendedHeader', size: records.length, mode: 0o644 });
  const block = Buffer.alloc(blockBytes);
  header.encode(block);
  return Buffer.concat([
    block,
    records,
    Buffer.alloc((blockBytes - (records.length % blockBytes)) % blockBytes),
  ]);
}

/** A record begins with its own length, which counts the digits of the length too. */
function paxRecord(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')]);
  let length = rest.length;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return Buffer.concat([Buffer.from(`${length}`), rest]);
}

/** Yields exactly the number of bytes in the header. */
async function* contentOf({ name, size }: ArtifactMember, path: string): AsyncGenerator<Buffer> {
  const { handle, size: present } = await refusing('pack_failed', () => openRegular(path));
  try {
    if (present !== size) throw changed(name);
    for (let left = size; left > 0;) {
      const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(Math.min(left, readBytes)));
      if (bytesRead === 0) throw changed(name);
      left -= bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

function changed(name: string): Error {
  return artifactsError('pack_failed', `${quote(name)} changed while it was packed`);
}
