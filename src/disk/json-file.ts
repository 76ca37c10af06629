/**
 * Reads and writes JSON files without trust. A build, a power cut or another release can have left anything in the place
 * of a record, so a read accepts only regular files of a bounded size (a FIFO would block the reader for ever) whose value
 * has the record's form. A write replaces the whole file.
 */
import { isReceiverError, ReceiverError, systemCode } from '../errors.js';
import { writeAtomic } from './atomic-write.js';
import { readRegular, readRegularSync } from './open-regular.js';

export interface JsonFormat<T> {
  /** Larger files are refused. */
  readonly maxBytes: number;
  /** Throws for an invalid value, as the `parse` of a zod schema does. */
  readonly parse: (value: unknown) => T;
}

/** Throws `STORAGE` for an invalid record, and system errors, including `ENOENT`. */
export async function readJsonFile<T>(file: string, format: JsonFormat<T>): Promise<T> {
  return parsed(file, await readRegular(file, format.maxBytes), format);
}

/** The same, synchronously: takes a tenth of the time for many small files. */
export function readJsonFileSync<T>(file: string, format: JsonFormat<T>): T {
  return parsed(file, readRegularSync(file, format.maxBytes), format);
}

/** Replaces the record (mode 0600), and makes its directory when it is missing. Throws system errors. */
export async function writeJsonFile(file: string, record: object): Promise<void> {
  await writeAtomic(file, JSON.stringify(record), { mode: 0o600 });
}

/** For a `catch`: null for a missing or an invalid record, any other error is rethrown. */
export function nullUnlessRecord(error: unknown): null {
  if (isReceiverError(error, 'STORAGE') || systemCode(error) === 'ENOENT') return null;
  throw error;
}

function parsed<T>(path: string, bytes: Uint8Array, { parse }: JsonFormat<T>): T {
  try {
    return parse(parseJson(bytes));
  } catch (cause) {
    throw new ReceiverError('STORAGE', 'invalid record', { path }, { cause });
  }
}

/** An object of ESPHome's JSON files, as a Map, so that a key such as `__proto__` is an ordinary key. */
export type JsonObject = ReadonlyMap<string, unknown>;

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The value of a JSON text (bytes are UTF-8); undefined for invalid JSON. Never throws. */
export function parseJson(text: Uint8Array | string): unknown {
  try {
    return JSON.parse(typeof text === 'string' ? text : decoder.decode(text)) as unknown;
  } catch {
    return undefined;
  }
}

/** The members of a JSON object in UTF-8, or null for anything else. Never throws. */
export function parseJsonObject(bytes: Uint8Array): JsonObject | null {
  return asObject(parseJson(bytes));
}

/** The members of a value that is an object and not an array, else null. */
export function asObject(value: unknown): JsonObject | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  return new Map(Object.entries(value));
}

export function stringOrNull(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}
