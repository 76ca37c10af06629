/**
 * The retention service, for operators and for the rest of the receiver. A device's directory is removed as a whole, under
 * its lease, when it was not used for a time or builds exceed a limit; tools and results have their own limits. Device
 * directories hold nothing that devices share, so a removal costs only its owner a rebuild. The original's sweep went by
 * directory times: it deleted shared caches every day, and kept the builds of departed peers for ever.
 */
import { join } from 'node:path';

import { setAsideBuild } from '../compile/build-dir.js';
import { assertUnlinked } from '../disk/contained.js';
import { namesIn } from '../disk/names.js';
import { ReceiverError, quote, isReceiverError } from '../errors.js';
import { platformKey } from '../esphome/platforms.js';
import { loadStorage } from '../esphome/storage-json.js';
import { devicesOnDisk } from '../jobs/devices-on-disk.js';
import { isTerminal } from '../jobs/record.js';
import type { Log } from '../log.js';
import type { RetentionLimits } from '../options/core-options.js';
import type { DashboardId, Layout, Paths, RemoteKey } from '../paths/index.js';
import { remoteKeyOf } from '../paths/resolver.js';
import { suspectTools } from '../toolchains/gate.js';
import { openDeviceUsage, type DeviceUsageLog } from './device-usage.js';
import { createResultStore, removeEntries, type EvictableStore } from './evictable.js';
import { createOwners, devicesOf, removePeerData, type PeerDataDeps } from './peer-data.js';
import {
  joinResults,
  removeDevice,
  removeFromDevice,
  type SweepReport,
  type UnderLease,
  itemOf,
  removeEach,
  type SweepResult,
} from './sweep.js';
import { openSweeper, type SweeperDeps } from './sweeper.js';
import type { UsageReport } from './usage.js';

export interface Retention {
  limits(): RetentionLimits;
  /** Changes some limits and sweeps at once. Throws `OPTIONS`, and as `sweep`. */
  setLimits(changes: Partial<RetentionLimits>): Promise<SweepReport>;
  /** Disk usage by peer, without a walk. */
  usage(): Promise<UsageReport>;
  /** Removes what is unused or over a limit; with `dryRun` it only reports that. Throws system errors. */
  sweep(options?: { readonly dryRun?: boolean | undefined }): Promise<SweepReport>;
  /** Marks a peer's build as used now. Ignores local and unknown ones. Throws `TRAVERSAL`. */
  touch(configuration: string): void;
  /**
   * Removes builds or a tool; with `dryRun` it only reports what that would free. The configuration and sidecar of a
   * device stay. Items in use stay and are reported. Throws `TRAVERSAL`, `STATE` for a local configuration, `NOT_FOUND`
   * for a version or toolchain that is not installed, and system errors.
   */
  reset(what: ResetTarget, options?: { readonly dryRun?: boolean | undefined }): Promise<SweepReport>;
}

/** A device, a peer's devices, an ESPHome release, a toolchain by its name in `usage`, or all devices. */
export type ResetTarget =
  | { readonly configuration: string }
  | { readonly dashboardId: string }
  | { readonly version: string }
  | { readonly toolchain: string }
  | 'all';

type ToolTarget = { readonly version: string } | { readonly toolchain: string };

export type RetentionService = Awaited<ReturnType<typeof openRetentionService>>;

export interface RetentionServiceDeps
  extends Omit<SweeperDeps, 'usage' | 'jobs' | 'results'>, Omit<PeerDataDeps, 'usage' | 'jobs'> {
  readonly paths: Paths;
  readonly jobs: SweeperDeps['jobs'] & PeerDataDeps['jobs'] & Parameters<typeof createResultStore>[0];
}

/** Reads the records and subscribes to jobs. Throws system errors. */
export async function openRetentionService(deps: RetentionServiceDeps) {
  const { paths, jobs, layout, tools, reserve, log } = deps;
  const usage = await openDeviceUsage(deps);
  const sweeper = openSweeper({ ...deps, usage, results: createResultStore(jobs) });
  const stopping = new AbortController();
  const { signal } = stopping;
  const own = { ...deps, usage, signal };
  const removeData = (id: DashboardId): Promise<boolean> => tracked(removePeerData(id, own));
  const owners = createOwners({
    ownersDir: layout.ownersDir,
    removeData,
    spend: reserve.spend,
    log,
  });
  const working = new Set<Promise<unknown>>();

  /** Makes `close` wait for the work. */
  function tracked<T>(work: Promise<T>): Promise<T> {
    working.add(work);
    void work.catch(() => {}).then(() => working.delete(work));
    return work;
  }

  async function devices(ids: readonly DashboardId[]): Promise<RemoteKey[]> {
    const listed = await Promise.all(ids.map((id) => devicesOf(layout, id)));
    return ids.flatMap((id, n) => (listed[n] ?? []).map((device) => ({ dashboardId: id, device })));
  }

  async function keysOf(target: Exclude<ResetTarget, ToolTarget>): Promise<readonly RemoteKey[]> {
    if (target === 'all') return (await devicesOnDisk(layout.buildsDir)).keys;
    if ('dashboardId' in target) return devices([paths.dashboardId(target.dashboardId)]);
    return [remoteKeyOf(paths, target.configuration)];
  }

  async function resetTool(target: ToolTarget, dryRun: boolean): Promise<SweepReport> {
    const name = 'version' in target ? target.version : target.toolchain;
    const kind = 'version' in target ? 'version' : 'toolchain';
    const chosen = (await tools.list()).filter(({ item }) => item.kind === kind && nameOf(item) === name);
    if (chosen.length === 0) throw new ReceiverError('NOT_FOUND', `${kind} ${quote(name)} is not installed`);
    return joinResults(dryRun, [await removeEntries(tools, chosen, { dryRun, signal, reserve, log })]);
  }

  const reset: Retention['reset'] = async (target, { dryRun = false } = {}) => {
    const isTool = target !== 'all' && ('version' in target || 'toolchain' in target);
    if (isTool) return tracked(resetTool(target, dryRun));
    const keys = await keysOf(target);
    return joinResults(dryRun, [await tracked(resetDevices(keys, { dryRun }, own))]);
  };

  /**
   * Removes a device's build; its configuration and sidecar stay. Throws `STATE` for a local configuration, `TRAVERSAL`,
   * `LOCK_TIMEOUT`, `CANCELLED` and system errors.
   */
  async function clean(configuration: string): Promise<void> {
    const key = remoteKeyOf(paths, configuration);
    try {
      await removeFromDevice(key, { reason: 'the build is being removed' }, own, (move) =>
        setAsideBuild(paths, configuration, move),
      );
    } finally {
      await usage.measure(key, signal);
    }
  }

  /** Also marks the tools of their platforms as suspect: a client asks for this only if it distrusts them. */
  async function resetAll(ids: readonly DashboardId[]): Promise<void> {
    const keys = await devices(ids);
    const platforms = new Set(await platformsOf(keys, layout));
    await suspectTools(layout.toolchainsDir, ({ platform }) => platforms.has(platform));
    const { left } = await resetDevices(keys, {}, own);
    if (left.length > 0) throw new ReceiverError('STORAGE', 'some devices could not be reset', { left });
  }

  return {
    retention: Object.freeze<Retention>({
      limits: sweeper.limits,
      setLimits: sweeper.setLimits,
      usage: sweeper.usage,
      sweep: sweeper.sweep,
      touch(configuration: string) {
        const key = paths.parseConfiguration(configuration);
        if (key !== null && usage.get(key) !== undefined) usage.touch(key);
      },
      reset,
    }),
    noRoomFor: sweeper.noRoomFor,
    openRoom: sweeper.openRoom,
    /** Resets these peers' devices. Null while they have unfinished jobs. Rejects when something is left. */
    resetPeers(ids: readonly DashboardId[]): Promise<void> | null {
      if (jobs.list().some((job) => !isTerminal(job) && ids.includes(job.dashboardId))) return null;
      return tracked(resetAll(ids));
    },
    clean: async (configuration: string): Promise<void> => tracked(clean(configuration)),
    /** Removes a device's directory, if it exists. Throws as `clean`. */
    async removeDevice(configuration: string): Promise<void> {
      const key = remoteKeyOf(paths, configuration);
      await tracked(removeDevice(key, { reason: 'the device is being removed' }, own));
    },
    owners,
    /** Resolves when all removals have ended. */
    async close(): Promise<void> {
      stopping.abort();
      await sweeper.close();
      await Promise.allSettled(working);
      await usage.settled();
    },
  };
}

function nameOf(item: Awaited<ReturnType<EvictableStore['list']>>[number]['item']): string | null {
  if (item.kind === 'version') return item.version;
  return item.kind === 'toolchain' ? item.toolchain : null;
}

/** The platforms of devices that were validated at least once. */
async function platformsOf(keys: readonly RemoteKey[], layout: Layout): Promise<(string | null)[]> {
  const sidecars = keys.map(async (key) => {
    const directory = join(layout.subtree(key), 'storage');
    const names = (await namesIn(directory)).filter((name) => name.endsWith('.json'));
    return Promise.all(
      names.map((name) =>
        loadStorage(join(directory, name)).then(
          ({ espPlatform }) => platformKey(espPlatform),
          () => null,
        ),
      ),
    );
  });
  return (await Promise.all(sidecars)).flat();
}

/** Entries of a device's directory that do not belong to its build. */
const kept = new Set(['config', '.config.from', 'storage']);

export interface ResetDeps {
  readonly layout: Layout;
  readonly usage: Pick<DeviceUsageLog, 'get' | 'measure'>;
  readonly underLease: UnderLease;
  readonly signal?: AbortSignal | undefined;
  readonly log: Log;
}

/**
 * Removes everything built for these devices, including files with unknown names; the configuration, the sidecar by which
 * the host shows the device, and shared tools stay. Continues after a device that cannot be reset. With `dryRun` it only
 * reports what a reset would free.
 */
export function resetDevices(
  keys: readonly RemoteKey[],
  { dryRun = false }: { readonly dryRun?: boolean },
  deps: ResetDeps,
): Promise<SweepResult> {
  return removeEach(keys, itemOf, deps.signal, {
    async remove(key) {
      const before = builtBytes(deps, key);
      if (dryRun) return before;
      await removeAllBuilt(key, deps);
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

async function removeAllBuilt(key: RemoteKey, deps: ResetDeps): Promise<void> {
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
