/**
 * Has devices begin from nothing: what was built goes, also what nobody knows the name of; the configuration stays, and
 * the sidecar by which the host shows the device. Tools and caches that devices share stay as well.
 *
 * A device at a time and under its lease, moved away first: half a build directory would pass for a whole one.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { assertUnlinked } from '../disk/contained.js';
import { isReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { Layout, RemoteKey } from '../paths/index.js';
import type { DeviceUsageLog } from './device-usage.js';
import {
  removeFromDevice,
  type UnderLease,
  type LeftInPlace,
  type Removed,
  itemOf,
  whyLeft,
  type SweepResult,
} from './sweep.js';

/** Names in a device's directory that are not of its build. */
const kept = new Set(['config', '.config.from', 'storage']);

export interface ResetDeps {
  readonly layout: Layout;
  readonly usage: Pick<DeviceUsageLog, 'get' | 'measure'>;
  readonly underLease: UnderLease;
  /** As of a removal. */
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
}

/** One that cannot be reset does not keep the others from it. With `dryRun` it only says what would be freed. */
export async function resetDevices(
  keys: readonly RemoteKey[],
  { dryRun = false }: { readonly dryRun?: boolean },
  deps: ResetDeps,
): Promise<SweepResult> {
  const removed: Removed[] = [];
  const left: LeftInPlace[] = [];
  for (const key of keys) {
    const item = itemOf(key);
    if (deps.signal?.aborted === true) {
      left.push({ what: item, why: 'the build server is stopping' });
      continue;
    }
    try {
      const before = builtBytes(deps, key);
      if (!dryRun) await reset(key, deps);
      removed.push({ item, bytes: dryRun ? before : Math.max(0, before - builtBytes(deps, key)) });
    } catch (error) {
      left.push({ what: item, why: whyLeft(error) });
      if (isReceiverError(error, 'CANCELLED')) continue;
      const { dashboardId, device } = key;
      deps.log.error({ dashboardId, device, err: error }, 'device reset failed');
    }
  }
  return { removed, left };
}

/** As it was measured last. */
function builtBytes({ usage }: ResetDeps, key: RemoteKey): number {
  const sizes = usage.get(key)?.sizes;
  return sizes ? sizes.build + sizes.other : 0;
}

async function reset(key: RemoteKey, deps: ResetDeps): Promise<void> {
  const { layout, usage, signal } = deps;
  const subtree = layout.subtree(key);
  try {
    await removeFromDevice(key, { reason: 'its builds are reset' }, deps, async (move) => {
      await assertUnlinked(layout.buildsDir, subtree);
      for (const name of await namesIn(subtree)) if (!kept.has(name)) await move(join(subtree, name));
    });
  } finally {
    await usage.measure(key, signal);
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
