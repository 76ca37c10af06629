/**
 * What is kept and what goes, and that nothing else ever does.
 *
 * A device's directory goes as a whole, under its lease, when nobody has used it for a time or the builds take too much
 * room; shared tools and results have their own limits. Everything is outside the directories in which ESPHome keeps
 * what devices share, so that tidying up never costs anybody but its owner a rebuild. The original's sweep went by the
 * times of directories: it deleted shared caches every day, and left what departed peers had built for ever.
 */
import { setAsideBuild } from '../compile/build-dir.js';
import { ReceiverError, quote } from '../errors.js';
import { devicesOnDisk } from '../jobs/devices-on-disk.js';
import { isTerminal } from '../jobs/record.js';
import type { RetentionLimits } from '../options/core-options.js';
import type { DashboardId, Paths, RemoteKey } from '../paths/index.js';
import { remoteKeyOf } from '../paths/resolver.js';
import { openDeviceUsage } from './device-usage.js';
import { createResultStore, removeEntries, type EvictableStore } from './evictable.js';
import { createOwners, type Owners, devicesOf, removePeerData, type PeerDataDeps } from './peer-data.js';
import { resetDevices } from './reset.js';
import { joinResults, removeDevice, removeFromDevice, type SweepReport } from './sweep.js';
import { openSweeper, type Sweeper, type SweeperDeps } from './sweeper.js';
import type { UsageReport } from './usage.js';

/** What an operator may ask. */
export interface Retention {
  limits(): RetentionLimits;
  /** Changes some of the limits; what no longer fits goes at once. Throws `OPTIONS`, and as `sweep`. */
  setLimits(changes: Partial<RetentionLimits>): Promise<SweepReport>;
  /** Who takes how much of the disk, known without a walk. */
  usage(): Promise<UsageReport>;
  /** Takes away what is too old or too much; with `dryRun` it only says what that is. Throws system errors. */
  sweep(options?: { readonly dryRun?: boolean | undefined }): Promise<SweepReport>;
  /** Notes that a peer's build is used now. A local one is ignored, and one that is not here. Throws `TRAVERSAL`. */
  touch(configuration: string): void;
  /**
   * Has something begin from nothing; with `dryRun` it only says what that would free. Of devices the configuration
   * and the sidecar stay. What is in use is left, and reported. Throws `TRAVERSAL`, `STATE` for a local configuration,
   * `NOT_FOUND` for a version or a toolchain that is not here, and system errors.
   */
  reset(what: ResetTarget, options?: { readonly dryRun?: boolean | undefined }): Promise<SweepReport>;
}

/** One device, all devices of a peer, one release of ESPHome, one toolchain as `usage` names them, or all devices. */
export type ResetTarget =
  | { readonly configuration: string }
  | { readonly dashboardId: string }
  | { readonly version: string }
  | { readonly toolchain: string }
  | 'all';

/** What the rest of the receiver needs besides. */
export interface RetentionService {
  readonly retention: Retention;
  readonly noRoomFor: Sweeper['noRoomFor'];
  /** Resets what was built for these peers. Null when jobs of theirs are under way. Rejects when something is left. */
  resetPeers(ids: readonly DashboardId[]): Promise<void> | null;
  /**
   * Removes what was built for a peer's device; its configuration and sidecar stay. Throws `STATE` for a local
   * configuration, `TRAVERSAL`, `LOCK_TIMEOUT`, `CANCELLED` and system errors.
   */
  clean(configuration: string): Promise<void>;
  /** Removes all that is here of a peer's device. Nothing there is fine. Throws as `clean`. */
  removeDevice(configuration: string): Promise<void>;
  /** Whose key the data of each peer is; by it a peer's data is removed. */
  readonly owners: Owners;
  /** Resolves when nothing is being removed. */
  close(): Promise<void>;
}

export interface RetentionServiceDeps
  extends Omit<SweeperDeps, 'usage' | 'jobs' | 'results'>, Omit<PeerDataDeps, 'usage' | 'jobs'> {
  readonly paths: Paths;
  readonly jobs: SweeperDeps['jobs'] & PeerDataDeps['jobs'] & Parameters<typeof createResultStore>[0];
}

/** Reads what is on record, and begins to follow the jobs. Throws system errors. */
export async function openRetentionService(deps: RetentionServiceDeps): Promise<RetentionService> {
  const { paths, jobs, layout, tools, log } = deps;
  const usage = await openDeviceUsage(deps);
  const sweeper = openSweeper({ ...deps, usage, results: createResultStore(jobs) });
  const stopping = new AbortController();
  const { signal } = stopping;
  const own = { ...deps, usage, signal };
  const removeData = (id: DashboardId): Promise<boolean> => tracked(removePeerData(id, own));
  const owners = createOwners({ ownersDir: layout.ownersDir, removeData, log });
  const working = new Set<Promise<unknown>>();

  /** To be waited for at the end. */
  function tracked<T>(work: Promise<T>): Promise<T> {
    working.add(work);
    void work.catch(() => {}).then(() => working.delete(work));
    return work;
  }

  async function devices(ids: readonly DashboardId[]): Promise<RemoteKey[]> {
    const found = ids.map(async (id) =>
      (await devicesOf(layout, id)).map((device) => ({ dashboardId: id, device })),
    );
    return (await Promise.all(found)).flat();
  }

  async function keysOf(
    wish: Exclude<ResetTarget, { version: string } | { toolchain: string }>,
  ): Promise<readonly RemoteKey[]> {
    if (wish === 'all') return (await devicesOnDisk(layout.buildsDir)).keys;
    if ('dashboardId' in wish) return devices([paths.dashboardId(wish.dashboardId)]);
    return [remoteKeyOf(paths, wish.configuration)];
  }

  async function resetTool(
    wish: { version: string } | { toolchain: string },
    dryRun: boolean,
  ): Promise<SweepReport> {
    const name = 'version' in wish ? wish.version : wish.toolchain;
    const kind = 'version' in wish ? 'version' : 'toolchain';
    const chosen = (await tools.list()).filter(({ item }) => item.kind === kind && nameOf(item) === name);
    if (chosen.length === 0) throw new ReceiverError('NOT_FOUND', `there is no ${kind} ${quote(name)} here`);
    return joinResults(dryRun, [await removeEntries(tools, chosen, { dryRun, signal, log })]);
  }

  const reset: Retention['reset'] = async (wish, { dryRun = false } = {}) => {
    if (wish !== 'all' && ('version' in wish || 'toolchain' in wish)) return tracked(resetTool(wish, dryRun));
    const keys = await keysOf(wish);
    return joinResults(dryRun, [await tracked(resetDevices(keys, { dryRun }, own))]);
  };

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

  async function resetAll(ids: readonly DashboardId[]): Promise<void> {
    const { left } = await resetDevices(await devices(ids), {}, own);
    if (left.length > 0) throw new ReceiverError('STORAGE', 'some devices could not be reset', { left });
  }

  return {
    retention: Object.freeze({
      limits: sweeper.limits,
      setLimits: sweeper.setLimits,
      usage: sweeper.usage,
      sweep: ({ dryRun }: { readonly dryRun?: boolean | undefined } = {}) =>
        sweeper.sweep({ dryRun: dryRun === true }),
      touch(configuration: string) {
        const key = paths.parseConfiguration(configuration);
        if (key !== null && usage.get(key) !== undefined) usage.touch(key);
      },
      reset,
    }),
    noRoomFor: sweeper.noRoomFor,
    resetPeers(ids) {
      if (jobs.list().some((job) => !isTerminal(job) && ids.includes(job.dashboardId))) return null;
      return tracked(resetAll(ids));
    },
    clean: (configuration) => tracked(clean(configuration)),
    async removeDevice(configuration) {
      const key = remoteKeyOf(paths, configuration);
      await tracked(removeDevice(key, { reason: 'the device is being removed' }, own));
    },
    owners,
    async close() {
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
