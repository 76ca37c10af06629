/**
 * Writes the members of an archive into a private directory and checks each one before its first byte.
 * Files are created exclusively and never through a link, with mode 0644 or 0755 and the current time (a time in the
 * future confuses ninja for ever). Disk calls are synchronous, because this runs in a dedicated thread
 * (threaded-intake.ts): a trip through the thread pool for each call took three times as long as the writing.
 */
import { createHash, type Hash } from 'node:crypto';
import { closeSync, constants, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { entriesInSync, nameBytes, onDisk } from '../disk/names.js';
import { ReceiverError, quote } from '../errors.js';
import { manifestFile } from '../esphome/manifest.js';
import { createRemoteContentScanner } from './remote-content.js';
import type { BundleLimits } from '../options/core-options.js';
import { createMemberTree, foldOf, type MemberTree } from './member-names.js';
import { spaceOf, type ContentFacts } from './store.js';
import { readTar, type TarMember } from './tar-reader.js';

/** Called before a member is written: grants at least so many more bytes on the disk, or throws `RESOURCE`. */
export type TakeRoom = (neededBytes: number) => Promise<number>;

export interface Extracted {
  /** The root's `manifest.json`. */
  readonly manifest: Buffer;
  readonly tree: MemberTree;
  readonly facts: ContentFacts;
}

/**
 * Unpacks into `directory`, which must be empty, and verifies the result. Throws `BUNDLE` for a faulty archive, what
 * `takeRoom` throws, and system errors from the disk; the directory's state is then undefined.
 */
export async function extract(
  stream: AsyncIterable<Buffer>,
  directory: string,
  limits: BundleLimits,
  takeRoom: TakeRoom = async () => Infinity,
): Promise<Extracted> {
  const tree = createMemberTree(limits, foldOf(directory));
  const leftOut = new Map<string, number>();
  const scanner = createRemoteContentScanner();
  const manifest: Buffer[] = [];
  const content = createHash('sha256');
  let bytes = 0;
  let bytesLeftOut = 0;
  let members = 0;
  let [reservedBytes, usedBytes] = [0, 0];
  for await (const member of readTar(stream)) {
    members += 1;
    if (members > limits.members) throw refused(`the bundle has more than ${limits.members} members`);
    const reserved = tree.reservedDirectory(member.path);
    if (reserved === null) bytes += member.size;
    else bytesLeftOut += member.size;
    if (bytes + bytesLeftOut > limits.unpackedBytes)
      throw refused(`the bundle holds more than ${limits.unpackedBytes} bytes`);
    if (reserved !== null) {
      leftOut.set(reserved, (leftOut.get(reserved) ?? 0) + 1);
      for await (const _ of member.body()) continue;
      continue;
    }
    usedBytes += spaceOf({ bytes: member.size, members: 1 });
    if (usedBytes > reservedBytes) reservedBytes += await takeRoom(usedBytes - reservedBytes);
    checkLength(directory, member.path);
    for (const parent of tree.admit(member.path, member.kind))
      mkdirSync(onDisk(join(directory, parent)), { mode: 0o755 });
    addHead(content, member);
    if (member.kind === 'directory') continue;
    const isManifest = member.path === manifestFile;
    if (isManifest && member.size > limits.manifestBytes) {
      throw refused(`the manifest is over ${limits.manifestBytes} bytes`);
    }
    const scan = scanner.member(member.path);
    await writeMember(join(directory, member.path), member, (piece) => {
      scan(piece);
      content.update(piece);
      if (isManifest) manifest.push(Buffer.from(piece));
    });
  }
  if (!tree.hasFile(manifestFile)) throw refused(`the bundle has no ${manifestFile}`);
  checkTree(directory, tree);
  return {
    manifest: Buffer.concat(manifest),
    tree,
    facts: {
      bytes,
      members,
      remoteContent: scanner.remoteContent(),
      contentSha256: content.digest('hex'),
      leftOut: [...leftOut].map(([name, count]) => ({ directory: name, members: count })),
    },
  };
}

/** What Linux takes for a whole path, less what its later place in `config/` may be longer. */
const maxPathBytes = 4_096 - 256;

function checkLength(directory: string, path: string): void {
  if (nameBytes(directory) + nameBytes(path) < maxPathBytes) return;
  throw refused(`the member ${quote(path)} has a path that is too long for the build server`);
}

/** Includes the size, which says where the bytes end, so two different trees never give the same input. */
function addHead(content: Hash, { path, kind, executable, size }: TarMember): void {
  content.update(JSON.stringify([path, kind, executable, size]));
}

const createOnly = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

async function writeMember(path: string, member: TarMember, read: (piece: Buffer) => void): Promise<void> {
  const file = openSync(onDisk(path), createOnly, member.executable ? 0o755 : 0o644);
  try {
    for await (const piece of member.body()) {
      read(piece);
      writeAll(file, piece);
    }
  } finally {
    closeSync(file);
  }
}

function writeAll(file: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
}

/** The final check: the directory holds exactly the admitted members, and only files and directories. */
function checkTree(root: string, tree: MemberTree): void {
  let count = 0;
  const waiting = [root];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    for (const { name, isDirectory, isFile } of entriesInSync(directory)) {
      count += 1;
      if (isDirectory) waiting.push(join(directory, name));
      else if (!isFile) throw refused(`the unpacked ${quote(name)} is neither a file nor a directory`);
    }
  }
  if (count !== tree.size)
    throw refused(`the unpacked tree has ${count} entries where ${tree.size} were sent`);
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}
