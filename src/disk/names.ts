/**
 * File names as text without loss. A Linux name is bytes, and Node decodes one that is not UTF-8 to a name that finds no
 * file, so such a tree could be neither measured nor removed. Each byte that is not UTF-8 becomes a lone surrogate from
 * U+DC80 to U+DCFF, as in Python, so every path can stay a string.
 *
 * The names of temporary files are here too. Each contains its process, which tells leftovers of a crash from files that
 * another receiver on the same disk uses. The age would not: a queued upload can be hours old.
 */
import { isUtf8 } from 'node:buffer';
import { createHash, randomUUID } from 'node:crypto';
import { readdirSync, type Dirent } from 'node:fs';
import { opendir } from 'node:fs/promises';

import { systemCode } from '../errors.js';
import { identify, isAlive, type ProcessIdentity } from '../process/identity.js';

const escapeBase = 0xdc00;
/** With the `u` flag: only lone ones, not the second half of an emoji. */
const escapes = /([\udc80-\udcff]+)/u;

/** The text of a name's bytes. Different bytes give different texts. */
export function decodeName(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  let start = 0;
  for (let at = 0; at < bytes.length;) {
    const length = characterLength(bytes, at);
    at += length;
    if (length > 0) continue;
    if (start < at) text += bytes.toString('utf8', start, at);
    text += String.fromCharCode(escapeBase + bytes.readUInt8(at));
    at += 1;
    start = at;
  }
  return text + bytes.toString('utf8', start);
}

/** The length of the UTF-8 character there (Unicode 16, table 3-7); 0 if it is not one. Cheap: names can be hostile. */
function characterLength(bytes: Buffer, at: number): number {
  const [lead = 0, second = 0] = [bytes[at], bytes[at + 1]];
  if (lead < 0x80) return 1;
  const length = lead < 0xc2 || lead > 0xf4 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  const least = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const most = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (second < least || second > most) return 0;
  for (let next = at + 2; next < at + length; next += 1) {
    const byte = bytes[next] ?? 0;
    if (byte < 0x80 || byte > 0xbf) return 0;
  }
  return length;
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

/** The names in a directory; none if somebody removed it. Throws other system errors. */
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

/** `unknown`: of another boot, container or machine, whose processes are not visible. */
export type Standing = 'alive' | 'gone' | 'unknown';

const shape = /(?:^|\.)(\d{1,10}-\d{1,20}-[0-9a-f]{12})\.[0-9a-f-]{36}\.tmp$/;

/** A unique name that ends in `.tmp`. */
export function temporaryName(maker = ownMaker()): string {
  return `${maker}.${randomUUID()}.tmp`;
}

/** The maker of a name that ends in a {@link temporaryName}; null for any other name. */
export function makerOf(name: string): string | null {
  return shape.exec(name)?.[1] ?? null;
}

/** A process as written in names. */
export function makerName({ pid, startTime, bootId }: ProcessIdentity): string {
  return `${pid}-${startTime}-${createHash('sha256').update(bootId).digest('hex').slice(0, 12)}`;
}

/** This process as written in names. */
export function ownMaker(): string {
  return makerName(ownIdentity());
}

/** Whether the process in a name still runs. Throws system errors when that cannot be read. */
export function standingOf(maker: string): Standing {
  if (maker === ownMaker()) return 'alive';
  const [pid, startTime] = maker.split('-').map(Number);
  const { bootId } = ownIdentity();
  const identity = { pid: pid ?? 0, startTime: startTime ?? 0, bootId };
  if (bootId === '' || maker !== makerName(identity)) return 'unknown';
  return isAlive(identity) ? 'alive' : 'gone';
}

/** Cached: it never changes, and thousands of names are created. */
let own: ProcessIdentity | null = null;

function ownIdentity(): ProcessIdentity {
  own ??= identify(process.pid);
  return own ?? { pid: process.pid, startTime: 0, bootId: '' };
}
