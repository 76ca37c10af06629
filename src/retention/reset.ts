/**
 * Resets devices: removes everything built for them, including files with unknown names. The configuration, the sidecar
 * by which the host shows the device, and shared tools and caches stay. Each device is reset under its lease, and its
 * files are moved away before they are deleted: half a build directory would pass for a whole one.
 */
import { join } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { isReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import type { DeviceUsageLog } from './device-usage.js';
import { namesIn } from '../disk/names.js';
import { removeFromDevice, type UnderLease, itemOf, removeEach, type SweepResult } from './sweep.js';

/** Entries of a device's directory that do not belong to its build. */
const kept = new Set(['config', '.config.from', 'storage']);

export interface ResetDeps {
  readonly layout: Layout;
  readonly usage: Pick<DeviceUsageLog, 'get' | 'measure'>;
  readonly underLease: UnderLease;
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
}

/** Continues after a device that cannot be reset. With `dryRun` it only reports what a reset would free. */
export function resetDevices(
  keys: readonly RemoteKey[],
  { dryRun = false }: { readonly dryRun?: boolean },
  deps: ResetDeps,
): Promise<SweepResult> {
  return removeEach(keys, itemOf, deps.signal, {
    async remove(key) {
      const before = builtBytes(deps, key);
      if (dryRun) return before;
      await reset(key, deps);
      return Math.max(0, before - builtBytes(deps, key));
    },
    failed(error, { dashboardId, device }) {
      if (isReceiverError(error, 'CANCELLED')) return;
      deps.log.error({ dashboardId, device, err: error }, 'device reset failed');
    },
  });
}

function builtBytes({ usage }: ResetDeps, key: RemoteKey): number {
  const sizes = usage.get(key)?.sizes;
  return sizes ? sizes.build + sizes.other : 0;
}

async function reset(key: RemoteKey, deps: ResetDeps): Promise<void> {
  const { layout, usage, signal } = deps;
  const subtree = layout.subtree(key);
  try {
    await removeFromDevice(key, { reason: 'the device is being reset' }, deps, async (move) => {
      await assertUnlinked(layout.buildsDir, subtree);
      for (const name of await namesIn(subtree)) if (!kept.has(name)) await move(join(subtree, name));
    });
  } finally {
    await usage.measure(key, signal);
  }
}
