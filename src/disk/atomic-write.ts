/**
 * Writes a file so that a reader, also after a power cut, sees the old content or the new, never half of it: temporary
 * sibling, sync, rename, sync of the directory. A truncated peers file would cost every pairing. A directory that a
 * person or `esphome clean-all` removed is made again, because what is acknowledged must be on disk.
 */
import { link, mkdir, open, rename, rm, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import { systemCode } from '../errors.js';
import { temporaryName } from './names.js';

interface WriteOptions {
  readonly mode?: number;
}

/** Replaces `file`, and makes its directory when it is missing. `mode` is exact, whatever the umask. Throws system errors. */
export async function writeAtomic(
  file: string,
  data: string | Uint8Array,
  options: WriteOptions = {},
): Promise<void> {
  await publish(file, data, options, (temporary) => rename(temporary, file));
}

/**
 * Creates `file` as {@link writeAtomic} does, but never replaces one: returns false if it exists. Of concurrent calls
 * exactly one creates it if the disk has hard links; otherwise the last one wins.
 */
export async function createAtomic(
  file: string,
  data: string | Uint8Array,
  options: WriteOptions = {},
): Promise<boolean> {
  try {
    await publish(file, data, options, async (temporary) => {
      try {
        await link(temporary, file);
      } catch (error) {
        if (!withoutLinks.has(systemCode(error))) throw error;
        return rename(temporary, file);
      }
      await rm(temporary);
    });
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** The error codes of a disk without hard links. */
const withoutLinks: ReadonlySet<string | undefined> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

async function publish(
  file: string,
  data: string | Uint8Array,
  { mode = 0o600 }: WriteOptions,
  place: (temporary: string) => Promise<void>,
): Promise<void> {
  const temporary = join(dirname(file), `.${basename(file)}.${temporaryName()}`);
  try {
    const handle = await openNew(temporary, mode);
    try {
      await handle.chmod(mode);
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await place(temporary);
  } catch (error) {
    // The next start removes what is left; the first error says more.
    await rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
  await syncDirectory(dirname(file));
}

async function openNew(file: string, mode: number): Promise<FileHandle> {
  try {
    return await open(file, 'wx', mode);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
    await makeDirectory(dirname(file));
    return open(file, 'wx', mode);
  }
}

/** Creates a directory and its parents; an existing one is left as it is. Throws system errors. */
export async function makeDirectory(directory: string, mode = 0o700): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode });
  } catch (error) {
    const parent = dirname(directory);
    if (systemCode(error) !== 'ENOENT' || parent === directory) throw error;
    // So Node reports a volume that can hold no more files (seen with Node 20). The plain call tells the cause.
    await makeDirectory(parent, mode);
    await mkdir(directory, { mode }).catch((cause: unknown) => {
      if (systemCode(cause) !== 'EEXIST') throw cause;
    });
  }
}

/** Makes renames and creations in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
