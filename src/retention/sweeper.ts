/**
 * Decides when to remove builds, results and tools: once an hour, after each build, when limits change, and when an
 * announced upload would not fit. Sweeps run one at a time and check each device again under its lease.
 */
import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/calls.js';
import type { NoRoom, StagingRoom } from '../bundles/store.js';
import type { Reserve } from '../disk/reserve.js';
import { freeSpaceBytes } from '../disk/reserve.js';
import type { JobService } from '../jobs/job-service.js';
import { isTerminal, type JobRecord } from '../jobs/record.js';
import type { Log } from '../log.js';
import type { RetentionLimits } from '../options/core-options.js';
import { changeRetention, type ResolvedOptions } from '../options/core.js';
import type { DashboardId, RemoteKey } from '../paths/index.js';
import type { DeviceUsageLog, DeviceRecord } from './device-usage.js';
import { evict, type EvictableStore, type EvictableEntry } from './evictable.js';
import { noRoomFor, takenBy, type Taken, overQuota } from './quota.js';
import {
  type RemovalDeps,
  bytesOfAll,
  joinResults,
  type Removed,
  type SweepReport,
  itemOf,
  strangeLeft,
  sweepDevices,
  type SweepDeps,
  type SweepResult,
} from './sweep.js';
import { usageOf, type UsageReport } from './usage.js';

export type Sweeper = ReturnType<typeof openSweeper>;

export interface SweeperDeps
  extends
    Omit<RemovalDeps, 'usage'>,
    Pick<ResolvedOptions, 'retention' | 'resultTtlMs' | 'minFreeDiskBytes'> {
  readonly usage: DeviceUsageLog;
  readonly jobs: Pick<JobService, 'resultBytes' | 'stagedBytes' | 'isBusy' | 'subscribe'>;
  readonly results: EvictableStore;
  readonly tools: EvictableStore;
  readonly reserve: Reserve;
  /** Free bytes on a directory's volume. Default: as the system reports them. */
  readonly freeBytesOf?: (directory: string) => Promise<number>;
  readonly clock: Clock;
  readonly log: Log;
}

const sweepEveryMs = 3_600_000;
/** The first sweep comes after the work of a start. */
const firstSweepMs = 60_000;
const firstSweepIfFullMs = 500;
/** Sizes older than this are measured again, in case something else changed the directory. */
const remeasureMs = 86_400_000;
/** Frees more than the minimum, so that the next build does not trigger another trim. */
const spareFactor = 1.25;
/** How long a measured free space stays valid. */
const freeSpaceTtlMs = 2_000;

/** Subscribes to jobs and schedules sweeps. `Retention` documents its methods. */
export function openSweeper(deps: SweeperDeps) {
  const { usage, jobs, layout, clock, log, freeBytesOf = freeSpaceBytes } = deps;
  const stopping = new AbortController();
  const { signal } = stopping;
  const isBusy = (key: RemoteKey): boolean => jobs.isBusy(key);
  const sweepDeps: SweepDeps = { ...deps, signal, isBusy };
  let limits: RetentionLimits = deps.retention;
  let free: { readonly bytes: number | null; readonly at: number } = { bytes: null, at: -Infinity };
  /** The last list that could be read. */
  let toolEntries: readonly EvictableEntry[] = [];
  /** Runs sweeps, trims and measurements one at a time. */
  const queue = createSerialQueue();
  let isTrimming = false;
  /** Directories of devices with a queued measurement. */
  const toMeasure = new Set<string>();
  let taken: Taken | null = null;
  /** The bytes of bundles that no job's record counts yet. */
  const arriving = new Map<DashboardId, number>();

  const stopFollowing = jobs.subscribe((event) => {
    if (event.type === 'fetched') return usage.touch(event.job);
    if (event.type !== 'state') return undefined;
    usage.touch(event.job);
    if (isTerminal(event.job)) queueMeasurement(event.job);
    return undefined;
  });
  let cancelTimer = clock.after(firstSweepMs, tick);
  inBackground(sweepIfFull());

  function tick(): void {
    inBackground(sweep(false));
    cancelTimer = clock.after(sweepEveryMs, tick);
  }

  async function sweepIfFull(): Promise<void> {
    const { minFreeDiskBytes } = deps;
    const freeBytes = await readFreeSpace();
    if (freeBytes === null || freeBytes >= minFreeDiskBytes || signal.aborted) return;
    cancelTimer();
    cancelTimer = clock.after(firstSweepIfFullMs, () => {
      log.warn({ freeBytes, minFreeDiskBytes }, 'volume nearly full, sweeping at once');
      tick();
    });
  }

  function inBackground(work: Promise<unknown>): void {
    work.catch((err: unknown) => log.error({ err }, 'sweep failed'));
  }

  /** One measurement covers all builds that end before it starts: jobs can end faster than a large directory is walked. */
  function queueMeasurement({ dashboardId, device }: JobRecord): void {
    const key = { dashboardId, device };
    const name = layout.subtree(key);
    if (toMeasure.has(name)) return;
    toMeasure.add(name);
    const work = queue.run(async () => {
      toMeasure.delete(name);
      if (signal.aborted) return;
      await usage.measure(key, signal);
      await trimBuilds(false, 0);
      await deps.reserve.refill();
    });
    inBackground(work);
  }

  /** Computed once per turn of the event loop: a peer can announce hundreds of uploads in one. */
  function takenNow(): Taken {
    if (taken === null) setImmediate(() => (taken = null));
    taken ??= takenBy(usage.list(), isBusy, stagedNow());
    return taken;
  }

  /** The bytes of bundles that are arriving or that jobs hold, by peer. */
  function stagedNow(): Map<DashboardId, number> {
    const staged = new Map(jobs.stagedBytes());
    for (const [id, bytes] of arriving) staged.set(id, (staged.get(id) ?? 0) + bytes);
    return staged;
  }

  function noRoom(dashboardId: DashboardId, bytes: number): NoRoom | null {
    if (clock.steady() - free.at >= freeSpaceTtlMs) void readFreeSpace();
    const { minFreeDiskBytes } = deps;
    const facts = { taken: takenNow(), limits, freeBytes: free.bytes, minFreeDiskBytes };
    const none = noRoomFor(dashboardId, bytes, facts);
    const isShort = free.bytes !== null && free.bytes < minFreeDiskBytes + bytes;
    if (none === null && isShort && !isTrimming && !signal.aborted) {
      isTrimming = true;
      inBackground(queue.run(() => trimBuilds(false, bytes)).finally(() => (isTrimming = false)));
    }
    return none;
  }

  /** A clean makes room, so its bundle is refused only beside other bundles. */
  function noRoomToClean(dashboardId: DashboardId, bytes: number): NoRoom | null {
    const staged = takenBy([], isBusy, stagedNow());
    return noRoomFor(dashboardId, bytes, { taken: staged, limits, freeBytes: null, minFreeDiskBytes: 0 });
  }

  async function readFreeSpace(): Promise<number | null> {
    const bytes = await freeBytesOf(layout.buildsDir).catch(() => null);
    free = { bytes, at: clock.steady() };
    return bytes;
  }

  /** Removes the least recently used builds until all limits hold and `wanted` more bytes fit. */
  async function trimBuilds(
    dryRun: boolean,
    wanted: number,
    gone: readonly Removed[] = [],
  ): Promise<SweepResult> {
    const { maxBuildBytes, maxBuildBytesPerPeer } = limits;
    const needed = deps.minFreeDiskBytes === 0 ? 0 : deps.minFreeDiskBytes + wanted;
    const found = await readFreeSpace();
    // In a dry run the `gone` devices are still on the disk.
    const freeBytes = found === null || !dryRun ? found : found + bytesOfAll(gone);
    const missingBytes = freeBytes !== null && freeBytes < needed ? needed * spareFactor - freeBytes : 0;
    const quota = { maxBuildBytes, maxBuildBytesPerPeer, missingBytes };
    const chosen = overQuota(usage.list().filter(isNotAmong(gone)), quota, isBusy);
    const reason = 'builds use too much disk space';
    const uses = new Map(chosen.map((record) => [layout.subtree(record), record.usedAt]));
    // A device used in the meantime is no longer the least recently used.
    const isWanted = (record: DeviceRecord): boolean => record.usedAt === uses.get(layout.subtree(record));
    return sweepDevices(chosen, { reason, isWanted, dryRun, signal }, sweepDeps);
  }

  async function sweepOld(dryRun: boolean): Promise<SweepResult> {
    const strange = await usage.refresh();
    const isOld = (record: DeviceRecord): boolean => clock.wall() - record.usedAt >= limits.buildTtlMs;
    const reason = 'the device was unused for too long';
    const old = usage.list().filter(isOld);
    const swept = await sweepDevices(old, { reason, isWanted: isOld, dryRun, signal }, sweepDeps);
    return { removed: swept.removed, left: [...swept.left, ...strangeLeft(strange)] };
  }

  function sweep(dryRun: boolean): Promise<SweepReport> {
    return queue.run(async () => {
      const startedAt = clock.steady();
      const old = await sweepOld(dryRun);
      if (!dryRun) await remeasure();
      const tooMuch = await trimBuilds(dryRun, 0, old.removed);
      const report = joinResults(dryRun, [old, tooMuch, ...(await evictTools(dryRun))]);
      if (dryRun) return report;
      await deps.reserve.refill();
      const ms = Math.round(clock.steady() - startedAt);
      const { removed, left, freedBytes } = report;
      log.info({ removed: removed.length, left: left.length, freedBytes, ms }, 'sweep finished');
      return report;
    });
  }

  async function remeasure(): Promise<void> {
    for (const record of usage.list()) {
      if (signal.aborted) return;
      const isDue = record.sizes === null || clock.wall() - record.measuredAt >= remeasureMs;
      if (isDue) await usage.measure(record, signal);
    }
    await deps.tools.measure?.(signal);
  }

  async function evictTools(dryRun: boolean): Promise<SweepResult[]> {
    const { maxResultBytes, toolTtlMs, maxToolBytes } = limits;
    const order = { now: clock.wall(), dryRun, signal, reserve: deps.reserve, log };
    return [
      await evict(deps.results, { ...order, ttlMs: deps.resultTtlMs, maxBytes: maxResultBytes }),
      await evict(deps.tools, { ...order, ttlMs: toolTtlMs, maxBytes: maxToolBytes }),
    ];
  }

  return {
    limits: (): RetentionLimits => limits,
    async setLimits(changes: Partial<RetentionLimits>): Promise<SweepReport> {
      limits = changeRetention(limits, changes);
      return sweep(false);
    },
    async usage(): Promise<UsageReport> {
      toolEntries = await deps.tools.list().catch((error: unknown) => {
        log.warn({ err: error }, 'tool usage unknown');
        return toolEntries;
      });
      return usageOf(usage.list(), jobs.resultBytes(), stagedNow(), toolEntries, await readFreeSpace());
    },
    sweep: async ({ dryRun }: { readonly dryRun?: boolean | undefined } = {}) => sweep(dryRun === true),
    /** Why an upload of this size cannot fit; null when it can. */
    noRoomFor: noRoom,
    /** Counts a bundle while it is unpacked: a small archive can hold what fills the disk. */
    openRoom({ dashboardId, target }: Pick<JobRecord, 'dashboardId' | 'target'>): StagingRoom {
      let held = 0;
      const hold = (bytes: number): void => {
        held += bytes;
        const sum = (arriving.get(dashboardId) ?? 0) + bytes;
        if (sum > 0) arriving.set(dashboardId, sum);
        else arriving.delete(dashboardId);
        taken = null;
      };
      return {
        take(bytes) {
          const why = target === 'clean' ? noRoomToClean(dashboardId, bytes) : noRoom(dashboardId, bytes);
          if (why === null) hold(bytes);
          return why;
        },
        release: () => hold(-held),
      };
    },
    /** Stops sweeps; resolves when all removals have ended. */
    async close(): Promise<void> {
      stopping.abort();
      cancelTimer();
      stopFollowing();
      await queue.idle();
      await usage.settled();
    },
  };
}

function isNotAmong(gone: readonly Removed[]): (record: DeviceRecord) => boolean {
  const names = new Set(gone.map(({ item }) => JSON.stringify(item)));
  return (record) => !names.has(JSON.stringify(itemOf(record)));
}
