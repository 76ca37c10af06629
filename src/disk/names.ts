/**
 * Names of files as text without loss. A Linux name is bytes, and Node's text for a name that is not UTF-8 finds no file:
 * such a tree could neither be measured nor removed. Each byte that is not UTF-8 becomes a lone surrogate from U+DC80 to
 * U+DCFF, as in Python, so that every path can stay a string between the disk and the disk.
 */
import { isUtf8 } from 'node:buffer';
import { readdirSync, type Dirent } from 'node:fs';
import { opendir } from 'node:fs/promises';

import { systemCode } from '../errors.js';

const escapeBase = 0xdc00;
/** With the `u` flag: only lone ones, not the second half of an emoji. */
const escapes = /([\udc80-\udcff]+)/u;

/** The text of a name's bytes. Different bytes give different texts. */
export function decodeName(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const length = characterLength(bytes, at);
    if (length === 0) text += String.fromCharCode(escapeBase + (bytes[at] ?? 0));
    else text += bytes.toString('utf8', at, at + length);
    at += length || 1;
  }
  return text;
}

/** The length of the UTF-8 character there; 0 if it is not one. */
function characterLength(bytes: Buffer, at: number): number {
  return (
    [1, 2, 3, 4].find((length) => at + length <= bytes.length && isUtf8(bytes.subarray(at, at + length))) ?? 0
  );
}

/** A path for a system call. */
export function onDisk(path: string): string | Buffer {
  return escapes.test(path) ? encodeName(path) : path;
}

/** The bytes of a name or path that {@link decodeName} has read. */
export function encodeName(text: string): Buffer {
  const parts = text
    .split(escapes)
    .map((part) =>
      escapes.test(part)
        ? Buffer.from(Array.from(part, (unit) => unit.charCodeAt(0) - escapeBase))
        : Buffer.from(part),
    );
  return Buffer.concat(parts);
}

/** The length of a name or path in bytes. */
export function nameBytes(text: string): number {
  return escapes.test(text) ? encodeName(text).length : Buffer.byteLength(text);
}

export interface DirectoryEntry {
  readonly name: string;
  readonly isDirectory: boolean;
  readonly isFile: boolean;
}

/** The entries of a directory, of which there can be more than there is memory for. Throws system errors. */
export async function* entriesIn(directory: string): AsyncGenerator<DirectoryEntry, void> {
  // Missing in Node's types.
  const options: object = { encoding: 'buffer' };
  for await (const entry of await opendir(onDisk(directory), options)) yield toEntry(entry);
}

/** The names in a directory; none when it is missing or a file, as after a person removed one of ours. Throws other system errors. */
export async function namesIn(directory: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of entriesIn(directory)) names.push(name);
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) throw error;
  }
  return names;
}

/** As {@link entriesIn}, at once. */
export function entriesInSync(directory: string): DirectoryEntry[] {
  return readdirSync(onDisk(directory), { encoding: 'buffer', withFileTypes: true }).map(toEntry);
}

function toEntry(entry: Dirent<string | Buffer>): DirectoryEntry {
  const { name } = entry;
  return {
    name: typeof name === 'string' ? name : decodeName(name),
    isDirectory: entry.isDirectory(),
    isFile: entry.isFile(),
  };
}
