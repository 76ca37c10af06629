/**
 * Writes the members of an archive into a directory that nobody else uses, each checked before its first byte.
 *
 * A file is created exclusively and never through a link, with a mode of 0644 or 0755 and the time of now: owners,
 * other bits and times of the archive (a future one confuses ninja for ever) are not taken over. So whatever the
 * archive says, only plain files below that directory can come of it.
 *
 * The disk is called synchronously, because this runs in a thread that does nothing else (unpack-thread.ts): the way
 * of each step through the pool of threads and back took three times what writing takes.
 */
import { createHash, type Hash } from 'node:crypto';
import { closeSync, constants, mkdirSync, openSync, readdirSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { ReceiverError, quote } from '../errors.js';
import { manifestFile } from '../esphome/manifest.js';
import { createRemoteContentScanner, type RemoteContent } from './remote-content.js';
import type { BundleLimits } from '../options/core-options.js';
import { createMemberTree, type MemberTree } from './member-names.js';
import { readTar, type TarMember } from './tar-reader.js';

export interface Extracted {
  /** `manifest.json` of the root. */
  readonly manifest: Buffer;
  /** Sum of the files' sizes. */
  readonly bytes: number;
  readonly members: number;
  readonly remoteContent: RemoteContent;
  /** Of the members' paths, kinds, modes and bytes, in hex: the same for the same content however it was packed. */
  readonly contentSha256: string;
  /** Whether exactly this path is a file of the tree. */
  readonly hasFile: (path: string) => boolean;
}

/**
 * Unpacks into `directory`, which must be empty, and looks at the result once more. Throws `BUNDLE` for what the
 * archive holds and system errors for what the disk says; the directory is then in no defined state.
 */
export async function extract(
  stream: AsyncIterable<Buffer>,
  directory: string,
  limits: BundleLimits,
): Promise<Extracted> {
  const tree = createMemberTree(limits);
  const scanner = createRemoteContentScanner();
  const manifest: Buffer[] = [];
  const content = createHash('sha256');
  let bytes = 0;
  let members = 0;
  for await (const member of readTar(stream)) {
    members += 1;
    if (members > limits.members) throw refused(`the bundle has more than ${limits.members} members`);
    makeDirectories(directory, tree.admit(member.path, member.kind));
    addHead(content, member);
    if (member.kind === 'directory') continue;
    bytes += member.size;
    if (bytes > limits.unpackedBytes)
      throw refused(`the bundle holds more than ${limits.unpackedBytes} bytes`);
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
    bytes,
    members,
    remoteContent: scanner.remoteContent(),
    contentSha256: content.digest('hex'),
    hasFile: (path) => tree.hasFile(path),
  };
}

function makeDirectories(root: string, directories: readonly string[]): void {
  for (const directory of directories) mkdirSync(join(root, directory), { mode: 0o755 });
}

/** The size says where the bytes end, so no two trees give one hash. */
function addHead(content: Hash, { path, kind, executable, size }: TarMember): void {
  content.update(JSON.stringify([path, kind, executable, size]));
}

const createOnly = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

async function writeMember(path: string, member: TarMember, read: (piece: Buffer) => void): Promise<void> {
  const file = openSync(path, createOnly, member.executable ? 0o755 : 0o644);
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

/** The last look: what lies there is what was admitted, and nothing but files and directories. */
function checkTree(directory: string, tree: MemberTree): void {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  const odd = entries.find((entry) => !entry.isFile() && !entry.isDirectory());
  if (odd !== undefined) throw refused(`the unpacked ${quote(odd.name)} is neither a file nor a directory`);
  if (entries.length !== tree.size) {
    throw refused(`the unpacked tree has ${entries.length} entries where ${tree.size} were sent`);
  }
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}
