/**
 * Opens a file that somebody else's build may have put there: a link is not followed, and a FIFO or a device,
 * which could make the reader wait for ever, is refused.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { open, type FileHandle, lstat } from 'node:fs/promises';

import { ReceiverError, systemCode } from '../errors.js';

export interface RegularFile {
  readonly handle: FileHandle;
  /** In bytes, when it was opened. */
  readonly size: number;
}

const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Opens a regular file for reading. Throws `STORAGE` for anything else, and system errors (`ELOOP` for a link). */
export async function openRegular(path: string): Promise<RegularFile> {
  const handle = await open(path, flags);
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

/** As {@link readRegular}, in one go: for small files of ours, where a FIFO would stop the whole process for ever. */
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
 * Whether something lies at a path, a link that leads nowhere included. What cannot be looked at counts as there: whoever
 * asks would otherwise forget, or build upon, what somebody has only locked away.
 */
export async function isThere(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    (error: unknown) => !['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? ''),
  );
}
