/** How much room a volume has left for this account; what is reserved for root does not count. */
import { statfs } from 'node:fs/promises';

/** In bytes. Throws system errors. */
export async function freeSpaceBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}
