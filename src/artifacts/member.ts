/** One file of the archive that a client downloads. */
import type { BuildFile } from './build-file.js';

export interface ArtifactMember {
  /** In the archive: relative, forward slashes. */
  readonly name: string;
  /** A file without links in its path, or the bytes themselves. */
  readonly source: string | Buffer;
  /** In bytes. */
  readonly size: number;
  /** Whether it is a program to run. */
  readonly executable: boolean;
}

export function fileMember({ name, path, size }: BuildFile, executable = false): ArtifactMember {
  return { name, source: path, size, executable };
}

export function bytesMember(name: string, bytes: Buffer): ArtifactMember {
  return { name, source: bytes, size: bytes.length, executable: false };
}
