/**
 * A tar archive of a few files that are in memory already, always the same bytes for the same files: no owner, no
 * time, one mode. A receiver knows a repeated bundle by its hash.
 */
import { Header, Pax } from 'tar';

const blockBytes = 512;
const epoch = new Date(0);

export interface TarFile {
  /** Relative, forward slashes. */
  readonly path: string;
  readonly bytes: Buffer;
}

export function packTar(files: readonly TarFile[]): Buffer {
  const ending = Buffer.alloc(2 * blockBytes);
  return Buffer.concat([
    ...files.flatMap(({ path, bytes }) => [...headersOf(path, bytes), padded(bytes)]),
    ending,
  ]);
}

/** The header, and before it an extended one when the name is too long for it or not ASCII. */
function headersOf(path: string, bytes: Buffer): Buffer[] {
  const header = new Header({
    ...{ path, size: bytes.length, type: 'File', mode: 0o644 },
    ...{ mtime: epoch, uid: 0, gid: 0 },
  });
  const block = Buffer.alloc(blockBytes);
  const isTooLong = header.encode(block);
  return isTooLong ? [new Pax({ path }).encode(), block] : [block];
}

function padded(bytes: Buffer): Buffer {
  const missing = (blockBytes - (bytes.length % blockBytes)) % blockBytes;
  return missing === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(missing)]);
}
