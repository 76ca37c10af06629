/**
 * Removes what a revoked peer has left here. Ids are chosen by peers and no secret: whoever pairs later under the
 * same one would otherwise find the builds of the first, download its firmware, or be handed what it has planted.
 */
import { readdir, rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { messageOf, systemCode } from '../errors.js';
import type { Jobs } from '../jobs/jobs.js';
import type { Log } from '../log.js';
import type { DashboardId, DeviceSegment, Layout, RemoteKey } from '../paths/index.js';

export interface PeerDataOptions {
  readonly layout: Layout;
  readonly jobs: Pick<Jobs, 'list' | 'remove' | 'cancelAllOf'>;
  /** Runs the work as the owner of one device's directory. */
  readonly underLease: <T>(key: RemoteKey, reason: string, work: () => Promise<T>) => Promise<T>;
  readonly log: Log;
}

/** Ends the peer's jobs, then forgets them with their results, then removes its directories. Never rejects. */
export async function removePeerData(id: DashboardId, options: PeerDataOptions): Promise<void> {
  const { layout, jobs, underLease, log } = options;
  await jobs.cancelAllOf(id);
  for (const job of jobs.list()) if (job.dashboardId === id) await jobs.remove(job.id);
  for (const device of await devicesOf(layout, id)) {
    const key = { dashboardId: id, device };
    try {
      await underLease(key, 'the peer was revoked', () => removeDevice(layout, key));
    } catch (error) {
      log.error({ error: messageOf(error), ...key }, 'the data of a revoked peer could not be removed');
    }
  }
  await rmdir(peerDir(layout, id)).catch(() => {});
}

async function removeDevice(layout: Layout, key: RemoteKey): Promise<void> {
  await assertUnlinked(layout.buildsDir, layout.subtree(key));
  const trashed = await moveToTrash(layout.subtree(key), layout.trashDir);
  if (trashed !== null) await removeTree(trashed);
}

/** Whatever lies there, under its name on disk; only directories that we made have one of our form. */
export async function devicesOf(layout: Layout, id: DashboardId): Promise<DeviceSegment[]> {
  try {
    return (await readdir(peerDir(layout, id))) as DeviceSegment[];
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
}

function peerDir(layout: Layout, dashboardId: DashboardId): string {
  return dirname(layout.subtree({ dashboardId, device: 'any' as DeviceSegment }));
}
