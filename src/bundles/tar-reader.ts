/**
 * Reads a tar archive as a stream of members, strictly: what ESPHome and Python's tarfile write (ustar headers,
 * PAX and GNU long names), and nothing else.
 *
 * The `tar` package decodes each header block, but not the stream: its parser decodes a long name chunk by chunk, so
 * a letter split between two chunks silently changes the name, and it buffers whatever follows the archive's end.
 */
import { Header } from 'tar';

import { decodeName } from '../disk/names.js';
import { ReceiverError, quote } from '../errors.js';

export interface TarMember {
  /** As in the archive, read as in disk/names.ts, without one trailing slash of a directory. Not checked. */
  readonly path: string;
  readonly kind: 'file' | 'directory';
  /** In bytes. */
  readonly size: number;
  /** Whether the owner can execute it. */
  readonly executable: boolean;
  /** The bytes. Read them once, before you request the next member. */
  body(): AsyncGenerator<Buffer, void>;
}

const blockBytes = 512;
/** Limit for one member's PAX records or GNU long name. */
const maxExtensionBytes = 64 * 1024;

/**
 * Yields the members in order. Throws `BUNDLE` for a member that is neither a file nor a directory, a damaged or
 * truncated archive, and bytes after its end.
 */
export async function* readTar(stream: AsyncIterable<Buffer>): AsyncGenerator<TarMember, void> {
  const source = createByteSource(stream);
  let overrides: Overrides | null = null;
  for (;;) {
    const block = await source.take(blockBytes);
    if (isZero(block)) break;
    const header = decodeHeader(block);
    const extension = await readExtension(source, header);
    if (extension !== null) {
      if (extension.forNext && overrides !== null) throw damaged('two extended headers for one member');
      overrides = extension.forNext ?? overrides;
      continue;
    }
    const member = toMember(source, header, block, overrides ?? noOverrides);
    overrides = null;
    yield member;
    await skip(member.body());
    await source.take(padding(member.size));
  }
  if (overrides !== null) throw damaged('an extended header without its member');
  await readEnd(source);
}

function decodeHeader(block: Buffer): Header {
  let header: Header;
  try {
    header = new Header(block);
  } catch (cause) {
    throw new ReceiverError('BUNDLE', 'the archive is damaged: a header cannot be read', {}, { cause });
  }
  if (!header.cksumValid) throw damaged('the checksum of a header is wrong');
  return header;
}

/** Reads an extended header; `forNext` is null when it overrides nothing. Null if the header is a member's. */
async function readExtension(
  source: ByteSource,
  header: Header,
): Promise<{ forNext: Overrides | null } | null> {
  const { type } = header;
  if (type !== 'ExtendedHeader' && type !== 'GlobalExtendedHeader' && type !== 'NextFileHasLongPath')
    return null;
  const size = sizeOf(header.size);
  if (size > maxExtensionBytes) throw damaged('an extended header is too long');
  const bytes = Buffer.from(await source.take(size));
  await source.take(padding(size));
  if (type === 'NextFileHasLongPath') return { forNext: { path: longName(bytes), size: null } };
  const read = parsePax(bytes);
  if (type === 'ExtendedHeader') return { forNext: read };
  if (read.path !== null || read.size !== null) throw damaged('a global header names a member');
  return { forNext: null };
}

function longName(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return decodeName(bytes.subarray(0, end < 0 ? bytes.length : end));
}

function toMember(source: ByteSource, header: Header, block: Buffer, overrides: Overrides): TarMember {
  const path = overrides.path ?? pathOf(header, block);
  const kind = kindOf(header.type, path);
  if (header.linkpath) throw new ReceiverError('BUNDLE', `the member ${quote(path)} is a link`);
  const size = kind === 'file' ? (overrides.size ?? sizeOf(header.size)) : 0;
  let left = size;
  return {
    path: kind === 'directory' && path.endsWith('/') ? path.slice(0, -1) : path,
    kind,
    size,
    executable: ((header.mode ?? 0) & 0o100) !== 0,
    async *body() {
      while (left > 0) {
        const piece = await source.takeUpTo(left);
        left -= piece.length;
        yield piece;
      }
    },
  };
}

const nameField = [0, 100] as const;
const magicField = [257, 265] as const;
const prefixField = [345, 500] as const;

/** The `tar` package decodes a name that is not UTF-8 with a loss; this reads its bytes. */
function pathOf({ path = '' }: Header, block: Buffer): string {
  if (!path.includes('\ufffd')) return path;
  const name = longName(block.subarray(...nameField));
  const isUstar = block.toString('latin1', ...magicField) === 'ustar\x0000';
  const prefix = isUstar ? longName(block.subarray(...prefixField)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function kindOf(type: string, path: string): TarMember['kind'] {
  if (type === 'File' || type === 'OldFile') return path.endsWith('/') ? 'directory' : 'file';
  if (type === 'Directory') return 'directory';
  const links = ['Link', 'SymbolicLink', 'NextFileHasLongLinkpath'];
  const what = links.includes(type) ? 'a link' : 'neither a file nor a directory';
  throw new ReceiverError('BUNDLE', `the member ${quote(path)} is ${what}`, { type });
}

function sizeOf(size: number | undefined): number {
  if (size === undefined || !Number.isSafeInteger(size) || size < 0) throw damaged('a size is not a number');
  return size;
}

async function skip(body: AsyncGenerator<Buffer, void>): Promise<void> {
  while (!(await body.next()).done);
}

/** Requires the second block of zeros, and only zeros after it. */
async function readEnd(source: ByteSource): Promise<void> {
  let last = await source.take(blockBytes);
  while (last.length > 0) {
    if (!isZero(last)) throw damaged('there are bytes after its end');
    last = await source.takeAny();
  }
}

function padding(size: number): number {
  return (blockBytes - (size % blockBytes)) % blockBytes;
}

const zeros = Buffer.alloc(64 * 1024);

function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const piece = bytes.subarray(at, at + zeros.length);
    if (!piece.equals(zeros.subarray(0, piece.length))) return false;
  }
  return true;
}

function damaged(how: string): ReceiverError {
  return new ReceiverError('BUNDLE', `the archive is damaged: ${how}`);
}

type ByteSource = ReturnType<typeof createByteSource>;

/**
 * Reads exact amounts from a stream of chunks. It requests a chunk only when the last one is used up, which provides
 * the back-pressure.
 */
function createByteSource(stream: AsyncIterable<Buffer>) {
  const chunks = stream[Symbol.asyncIterator]();
  let rest: Buffer = Buffer.alloc(0);

  /** False at the end of the stream. */
  async function fill(): Promise<boolean> {
    while (rest.length === 0) {
      const next = await chunks.next();
      if (next.done) return false;
      rest = next.value;
    }
    return true;
  }

  function cut(most: number): Buffer {
    const piece = rest.subarray(0, most);
    rest = rest.subarray(piece.length);
    return piece;
  }

  /** From one byte to `most` bytes, as they arrive. Throws `BUNDLE` at the end. */
  async function takeUpTo(most: number): Promise<Buffer> {
    if (!(await fill())) throw new ReceiverError('BUNDLE', 'the archive is truncated');
    return cut(most);
  }

  return {
    takeUpTo,
    /** Exactly `amount` bytes, which can share memory with a chunk. Throws `BUNDLE` if the archive ends before. */
    async take(amount: number): Promise<Buffer> {
      if (rest.length >= amount) return cut(amount);
      const pieces: Buffer[] = [];
      for (let left = amount; left > 0;) {
        const piece = await takeUpTo(left);
        pieces.push(piece);
        left -= piece.length;
      }
      return Buffer.concat(pieces);
    },
    /** The rest of the chunk, or the next chunk; empty at the end. */
    async takeAny(): Promise<Buffer> {
      await fill();
      return cut(rest.length);
    },
  };
}

/** Values that replace fields of the next member's header. */
interface Overrides {
  readonly path: string | null;
  /** In bytes. */
  readonly size: number | null;
}

const noOverrides: Overrides = Object.freeze({ path: null, size: null });

const space = 0x20;
const newline = 0x0a;

/**
 * Reads the records of a PAX header and ignores times, owners and comments. It goes by their byte lengths, as POSIX
 * says: a name can contain a newline, and a reader that goes by lines takes a part of one name for another record.
 * Throws `BUNDLE` for a malformed record, a link, and the keys of sparse files.
 */
function parsePax(bytes: Buffer): Overrides {
  let { path, size } = noOverrides;
  for (const [key, value] of records(bytes)) {
    if (key === 'path') path = decodeName(value);
    else if (key === 'size') size = paxSize(value);
    else if (key === 'linkpath') throw malformed('it holds a link');
    else if (key.startsWith('GNU.sparse.')) throw malformed('it holds a sparse file');
  }
  return { path, size };
}

function* records(bytes: Buffer): Generator<readonly [key: string, value: Buffer]> {
  for (let at = 0; at < bytes.length;) {
    const length = lengthAt(bytes, at);
    const record = bytes.subarray(at, at + length);
    const start = record.indexOf(space) + 1;
    const equals = record.indexOf('=', start);
    if (record.length < length || record.at(-1) !== newline || equals < 0)
      throw malformed('a record is malformed');
    yield [record.toString('utf8', start, equals), record.subarray(equals + 1, -1)];
    at += length;
  }
}

/** The decimal number at a record's start: the length of the whole record, number included. */
function lengthAt(bytes: Buffer, at: number): number {
  const digits = /^([1-9][0-9]{0,6}) /.exec(bytes.toString('latin1', at, at + 8))?.[1];
  if (digits === undefined) throw malformed('a record is malformed');
  return Number(digits);
}

function paxSize(value: Buffer): number {
  const text = value.toString('latin1', 0, 17);
  if (!/^[0-9]{1,15}$/.test(text)) throw malformed('a size is not a number');
  return Number(text);
}

function malformed(how: string): ReceiverError {
  return new ReceiverError('BUNDLE', `the archive is damaged: an extended header is bad, ${how}`);
}
