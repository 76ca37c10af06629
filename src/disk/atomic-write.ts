/**
 * Writes a file so that a reader, or a machine that lost its power, sees the old content or the new and never
 * half of it: temporary sibling, sync, rename, sync of the directory. A peers file that is cut in the middle
 * would cost every pairing.
 */
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import { temporaryName } from './temporary.js';

/** Replaces `file`. The directory must exist. `mode` is exact, whatever the umask. Throws system errors. */
export async function writeAtomic(
  file: string,
  data: string | Uint8Array,
  { mode = 0o600 } = {},
): Promise<void> {
  const temporary = join(dirname(file), `.${basename(file)}.${temporaryName()}`);
  try {
    const handle = await open(temporary, 'wx', mode);
    try {
      await handle.chmod(mode);
      await handle.writeFile(data);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(file));
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
