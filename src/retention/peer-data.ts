/**
 * Removes what a revoked peer has left here. Ids are chosen by peers and no secret: whoever pairs later under the
 * same one would otherwise find the builds of the first, download its firmware, or be handed what it has planted.
 */
import { readdir, rmdir } from 'node:fs/promises';
import { dirname } from 'node:path';

import { messageOf, systemCode } from '../errors.js';
import type { Jobs } from '../jobs/jobs.js';
import type { Log } from '../log.js';
import type { DashboardId, DeviceSegment, Layout } from '../paths/index.js';
import { removeDevice, type RemovalDeps } from './remove-device.js';

export interface PeerDataDeps extends RemovalDeps {
  readonly jobs: Pick<Jobs, 'list' | 'remove' | 'cancelAllOf'>;
  readonly log: Log;
}

/**
 * Ends the peer's jobs, then forgets them with their results, then removes its directories. False when something is
 * left; never rejects.
 */
export async function removePeerData(id: DashboardId, deps: PeerDataDeps): Promise<boolean> {
  const { layout, jobs, log } = deps;
  let isGone = true;
  async function attempt<T>(work: () => Promise<T>, facts: object = {}): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      isGone = false;
      const named = { error: messageOf(error), dashboardId: id, ...facts };
      log.error(named, 'the data of a revoked peer could not be removed');
      return undefined;
    }
  }

  await attempt(() => forgetJobs(id, jobs));
  for (const device of (await attempt(() => devicesOf(layout, id))) ?? []) {
    if (deps.signal?.aborted === true) return false;
    const key = { dashboardId: id, device };
    await attempt(() => removeDevice(key, { reason: 'the peer was revoked' }, deps), { device });
  }
  await rmdir(peerDir(layout, id)).catch(() => {});
  return isGone;
}

/**
 * Ends the jobs that this receiver has of the peer, then forgets them with their results. One that cannot be does not
 * keep the others from it; then it throws, at the end, what the first has thrown.
 */
export async function forgetJobs(id: DashboardId, jobs: PeerDataDeps['jobs']): Promise<void> {
  await jobs.cancelAllOf(id);
  const own = jobs.list().filter((job) => job.dashboardId === id);
  const results = await Promise.allSettled(own.map((job) => jobs.remove(job.id)));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** Whatever lies there, under its name on disk; only directories that we made have one of our form. */
export async function devicesOf(layout: Layout, id: DashboardId): Promise<DeviceSegment[]> {
  try {
    return (await readdir(peerDir(layout, id))) as DeviceSegment[];
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return [];
    throw error;
  }
}

function peerDir(layout: Layout, dashboardId: DashboardId): string {
  return dirname(layout.subtree({ dashboardId, device: 'any' as DeviceSegment }));
}
