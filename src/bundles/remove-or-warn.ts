/**
 * Removes what an upload has left, apart from the intake itself: the receiver's main thread must do it when the
 * unpacking thread has died, and it would load the whole of the unpacking at its start otherwise.
 */
import { removeTree } from '../disk/remove.js';
import type { Log } from '../log.js';

/** Never rejects. */
export async function removeOrWarn(directory: string, log: Log): Promise<void> {
  try {
    await removeTree(directory);
  } catch (error) {
    log.warn({ error, directory }, 'an uploaded bundle could not be removed; the sweep will try again');
  }
}
