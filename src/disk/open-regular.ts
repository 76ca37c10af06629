/**
 * Opens files that an untrusted build can have created: it does not follow links, and rejects FIFOs and devices, which
 * could block the reader forever.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { open, type FileHandle, lstat } from 'node:fs/promises';

import { ReceiverError, systemCode } from '../errors.js';
import { onDisk } from './names.js';

const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Throws `STORAGE` for anything but a regular file, and system errors (`ELOOP` for a link). */
export async function openRegular(
  path: string,
): Promise<{ readonly handle: FileHandle; readonly size: number }> {
  const handle = await open(onDisk(path), flags);
  try {
    const stat = await handle.stat();
    if (stat.isFile()) return { handle, size: stat.size };
    throw new ReceiverError('STORAGE', 'a file is needed and something else is there', { path });
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** The whole content of a regular file. Throws as {@link openRegular}, and `STORAGE` over `maxBytes`. */
export async function readRegular(path: string, maxBytes: number): Promise<Buffer> {
  const { handle, size } = await openRegular(path);
  try {
    if (size > maxBytes)
      throw new ReceiverError('STORAGE', `a file is over ${maxBytes} bytes`, { path, size });
    const bytes = Buffer.alloc(size);
    const { bytesRead } = await handle.read(bytes, 0, size, 0);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** As {@link readRegular}, synchronously, for small files. */
export function readRegularSync(path: string, maxBytes: number): Buffer {
  const descriptor = openSync(path, flags);
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile() || stat.size > maxBytes)
      throw new ReceiverError('STORAGE', `a file of at most ${maxBytes} bytes is needed`, { path });
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Whether something exists at a path, including a dangling link. An inaccessible path counts as existing: the caller
 * would otherwise forget or overwrite something that is only locked.
 */
export async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (error: unknown) => !['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? ''),
  );
}
