/**
 * The records of a PAX header that change what a member is, by their byte lengths as POSIX says: a name may hold
 * any letter, and a reader that goes by lines takes a part of one name for another record.
 */
import { ReceiverError } from '../errors.js';

/** What takes the place of the fields of the header that follows. */
export interface Overrides {
  readonly path: string | null;
  /** In bytes. */
  readonly size: number | null;
}

export const noOverrides: Overrides = Object.freeze({ path: null, size: null });

const space = 0x20;
const newline = 0x0a;

/**
 * Reads all records. Times, owners and comments are ignored. Throws `BUNDLE` for a malformed record, for a link,
 * and for the keys that make sparse files.
 */
export function parsePax(bytes: Buffer): Overrides {
  let { path, size } = noOverrides;
  for (const [key, value] of records(bytes)) {
    if (key === 'path') path = value.toString('utf8');
    else if (key === 'size') size = sizeOf(value);
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

/** The decimal number that begins a record: its whole length, the number included. */
function lengthAt(bytes: Buffer, at: number): number {
  const digits = /^([1-9][0-9]{0,6}) /.exec(bytes.toString('latin1', at, at + 8))?.[1];
  if (digits === undefined) throw malformed('a record is malformed');
  return Number(digits);
}

function sizeOf(value: Buffer): number {
  const text = value.toString('latin1', 0, 17);
  if (!/^[0-9]{1,15}$/.test(text)) throw malformed('a size is not a number');
  return Number(text);
}

function malformed(how: string): ReceiverError {
  return new ReceiverError('BUNDLE', `the archive is damaged: an extended header is bad, ${how}`);
}
