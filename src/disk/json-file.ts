/**
 * Small records of ours, one JSON file each. A build, a power cut or another release may have left anything in the place
 * of one: so a read takes regular files of a bounded size only (a FIFO would stop the reader for ever), and nothing that
 * does not have the record's form. A write replaces the whole.
 */
import { isReceiverError, ReceiverError, systemCode } from '../errors.js';
import { writeAtomic } from './atomic-write.js';
import { parseJson } from './json.js';
import { readRegular, readRegularSync } from './open-regular.js';

export interface JsonFormat<T> {
  /** Larger files are no record. */
  readonly maxBytes: number;
  /** Throws for a value that is none. A zod schema has one. */
  readonly parse: (value: unknown) => T;
}

/** The record. Throws `STORAGE` for what is none, and system errors, `ENOENT` among them. */
export async function readJsonFile<T>(file: string, format: JsonFormat<T>): Promise<T> {
  return parsed(file, await readRegular(file, format.maxBytes), format);
}

/** As {@link readJsonFile}, in one go: for many small files, which takes a tenth of the time. */
export function readJsonFileSync<T>(file: string, format: JsonFormat<T>): T {
  return parsed(file, readRegularSync(file, format.maxBytes), format);
}

/** Replaces the record (mode 0600). The directory must exist. Throws system errors. */
export async function writeJsonFile(file: string, record: object): Promise<void> {
  await writeAtomic(file, JSON.stringify(record), { mode: 0o600 });
}

/** For whom a record that cannot be understood is as good as none: null for both, and throws what says neither. */
export function nullUnlessRecord(error: unknown): null {
  if (isReceiverError(error, 'STORAGE') || systemCode(error) === 'ENOENT') return null;
  throw error;
}

function parsed<T>(path: string, bytes: Uint8Array, { parse }: JsonFormat<T>): T {
  try {
    return parse(parseJson(bytes));
  } catch (cause) {
    throw new ReceiverError('STORAGE', 'a record is damaged', { path }, { cause });
  }
}
