/**
 * Has devices begin from nothing: what was built goes, also what nobody knows the name of; the configuration stays, and
 * the sidecar by which the host shows the device. Tools and caches that devices share stay as well.
 *
 * A device at a time and under its lease, moved away first: half a build directory would pass for a whole one.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { ReceiverError, messageOf, systemCode } from '../errors.js';
import type { DashboardId, Layout, RemoteKey } from '../paths/index.js';
import { devicesOf, type PeerDataOptions } from './peer-data.js';

/** Names in a device's directory that are not of its build. */
const kept = new Set(['config', '.config.from', 'storage']);

export type ResetOptions = Pick<PeerDataOptions, 'layout' | 'underLease' | 'log'>;

/** One that cannot be reset does not keep the others from it. Throws `STORAGE` at the end, when there was one. */
export async function resetDevices(ids: readonly DashboardId[], options: ResetOptions): Promise<void> {
  const { layout, underLease, log } = options;
  let failures = 0;
  for (const dashboardId of ids) {
    for (const device of await devicesOf(layout, dashboardId)) {
      const key = { dashboardId, device };
      try {
        await underLease(key, 'its builds are reset', () => resetDevice(layout, key));
      } catch (error) {
        failures += 1;
        log.error({ error: messageOf(error), ...key }, 'the builds of a device could not be reset');
      }
    }
  }
  if (failures > 0) throw new ReceiverError('STORAGE', 'some devices could not be reset', { failures });
}

async function resetDevice(layout: Layout, key: RemoteKey): Promise<void> {
  const subtree = layout.subtree(key);
  await assertUnlinked(layout.buildsDir, subtree);
  for (const name of await namesIn(subtree)) {
    if (kept.has(name)) continue;
    const trashed = await moveToTrash(join(subtree, name), layout.trashDir);
    if (trashed !== null) await removeTree(trashed);
  }
}

/** A file in a device's place is none of ours. */
async function namesIn(subtree: string): Promise<readonly string[]> {
  return readdir(subtree).catch((error: unknown) => {
    const code = systemCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  });
}
