/**
 * Decides when something goes: at a sweep once an hour, after each build, when a limit is lowered, and when an upload is
 * announced that would not fit. One such work at a time; what it may take is decided again under each lease.
 */
import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/serial-queue.js';
import { freeSpaceBytes } from '../disk/usage.js';
import type { JobService } from '../jobs/job-service.js';
import { isTerminal, type JobRecord } from '../jobs/record.js';
import type { Log } from '../log.js';
import type { RetentionLimits } from '../options/core-options.js';
import { changeRetention, type ResolvedOptions } from '../options/core.js';
import type { DashboardId, RemoteKey } from '../paths/index.js';
import type { DeviceUsageLog, DeviceRecord } from './device-usage.js';
import { evict, type EvictableStore, type EvictableEntry, type EvictionLimits } from './evictable.js';
import { noRoomFor, takenBy, type NoRoom, type Taken, overQuota } from './quota.js';
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

export interface Sweeper {
  readonly limits: () => RetentionLimits;
  /** Changes some of the limits; what no longer fits goes at once. Throws `OPTIONS`. */
  setLimits(changes: Partial<RetentionLimits>): Promise<SweepReport>;
  /** What is known without a walk. */
  usage(): Promise<UsageReport>;
  /** Takes away what is too old or too much; with `dryRun` it only says what that is. Throws system errors. */
  sweep(options?: { readonly dryRun?: boolean }): Promise<SweepReport>;
  /** Why an upload of as many bytes cannot have room; null when it can. */
  noRoomFor(dashboardId: DashboardId, bytes: number): NoRoom | null;
  /** Ends it; resolves when nothing is being removed. */
  close(): Promise<void>;
}

export interface SweeperDeps
  extends
    Omit<RemovalDeps, 'usage'>,
    Pick<ResolvedOptions, 'retention' | 'resultTtlMs' | 'minFreeDiskBytes'> {
  readonly usage: DeviceUsageLog;
  readonly jobs: Pick<JobService, 'resultBytes' | 'isBusy' | 'subscribe'>;
  readonly results: EvictableStore;
  /** Installed releases and toolchains together. */
  readonly tools: EvictableStore;
  /** What the volume of a directory has left, in bytes. Default: what the system says. */
  readonly freeBytesOf?: (directory: string) => Promise<number>;
  readonly clock: Clock;
  readonly log: Log;
}

const sweepEveryMs = 3_600_000;
/** The first comes after what a start has to do. */
const firstSweepMs = 60_000;
/** A figure as old as this is measured anew, in case somebody else has changed the directory. */
const remeasureMs = 86_400_000;
/** Builds go until as much more is free than must be, so that the next one does not begin it anew. */
const spareFactor = 1.25;
/** How long a look at the volume holds. */
const freeMs = 2_000;

/** Begins to follow the jobs, and sweeps from then on. */
export function openSweeper(deps: SweeperDeps): Sweeper {
  const { usage, jobs, layout, clock, log, freeBytesOf = freeSpaceBytes } = deps;
  const stopping = new AbortController();
  const { signal } = stopping;
  const isBusy = (key: RemoteKey): boolean => jobs.isBusy(key);
  const sweepDeps: SweepDeps = { ...deps, signal, isBusy };
  let limits: RetentionLimits = deps.retention;
  let free: { readonly bytes: number | null; readonly at: number } = { bytes: null, at: -Infinity };
  /** As they were when they could be looked at last. */
  let toolEntries: readonly EvictableEntry[] = [];
  let cancelTimer = (): void => {};
  /** Work on the disk. */
  const turns = createSerialQueue();
  let isTrimming = false;
  /** Directories of devices whose build has ended. */
  const toMeasure = new Set<string>();
  let taken: Taken | null = null;

  const stopFollowing = jobs.subscribe((event) => {
    if (event.type === 'fetched') return usage.touch(event.job);
    if (event.type !== 'state') return undefined;
    usage.touch(event.job);
    if (isTerminal(event.job)) look(event.job);
    return undefined;
  });
  cancelTimer = clock.after(firstSweepMs, tick);
  void lookAtVolume();

  function tick(): void {
    inBackground(sweep(false));
    cancelTimer = clock.after(sweepEveryMs, tick);
  }

  /** Nobody waits for it, so what it rejects with is for the log. */
  function inBackground(work: Promise<unknown>): void {
    work.catch((error: unknown) => {
      log.error({ err: error }, 'sweep failed');
    });
  }

  /** Once for all builds that end before its turn: jobs can end faster than a large directory is measured. */
  function look({ dashboardId, device }: JobRecord): void {
    const key = { dashboardId, device };
    const name = layout.subtree(key);
    if (toMeasure.has(name)) return;
    toMeasure.add(name);
    inBackground(
      turns.run(() => {
        toMeasure.delete(name);
        return afterBuild(key);
      }),
    );
  }

  async function afterBuild(key: RemoteKey): Promise<void> {
    if (signal.aborted) return;
    await usage.measure(key, signal);
    await trimBuilds(false, 0);
  }

  /** Once a turn: a peer can announce hundreds of uploads in one. */
  function takenNow(): Taken {
    if (taken === null) setImmediate(() => (taken = null));
    taken ??= takenBy(usage.list(), isBusy);
    return taken;
  }

  async function lookAtVolume(): Promise<number | null> {
    const bytes = await freeBytesOf(layout.buildsDir).catch(() => null);
    free = { bytes, at: clock.steady() };
    return bytes;
  }

  /** Has the least recently used builds go until all limits hold, and `wanted` bytes more can come. */
  async function trimBuilds(
    dryRun: boolean,
    wanted: number,
    gone: readonly Removed[] = [],
  ): Promise<SweepResult> {
    const { maxBuildBytes, maxBuildBytesPerPeer } = limits;
    const needed = deps.minFreeDiskBytes === 0 ? 0 : deps.minFreeDiskBytes + wanted;
    const looked = await lookAtVolume();
    // What a dry run says has gone is still there.
    const freeBytes = looked === null || !dryRun ? looked : looked + bytesOfAll(gone);
    const missingBytes = freeBytes !== null && freeBytes < needed ? needed * spareFactor - freeBytes : 0;
    const quota = { maxBuildBytes, maxBuildBytesPerPeer, missingBytes };
    const chosen = overQuota(usage.list().filter(isNone(gone)), quota, isBusy);
    const reason = 'builds take too much room';
    const uses = new Map(chosen.map((record) => [layout.subtree(record), record.usedAt]));
    // Used meanwhile, it is no longer the one that was not used for the longest time.
    const isWanted = (record: DeviceRecord): boolean => record.usedAt === uses.get(layout.subtree(record));
    return sweepDevices(chosen, { reason, isWanted, dryRun, signal }, sweepDeps);
  }

  async function sweepOld(dryRun: boolean): Promise<SweepResult> {
    const strange = await usage.refresh();
    const isOld = (record: DeviceRecord): boolean => clock.wall() - record.usedAt >= limits.buildTtlMs;
    const reason = 'nobody has used it for a time';
    const old = usage.list().filter(isOld);
    const swept = await sweepDevices(old, { reason, isWanted: isOld, dryRun, signal }, sweepDeps);
    return { removed: swept.removed, left: [...swept.left, ...strangeLeft(strange)] };
  }

  function sweep(dryRun: boolean): Promise<SweepReport> {
    return turns.run(async () => {
      const startedAt = clock.steady();
      const old = await sweepOld(dryRun);
      if (!dryRun) await remeasure();
      const tooMuch = await trimBuilds(dryRun, 0, old.removed);
      const report = joinResults(dryRun, [old, tooMuch, ...(await evictTools(dryRun))]);
      const { removed, left, freedBytes } = report;
      const facts = {
        removed: removed.length,
        left: left.length,
        freedBytes,
        ms: Math.round(clock.steady() - startedAt),
      };
      if (!dryRun) log.info(facts, 'sweep finished');
      return report;
    });
  }

  async function remeasure(): Promise<void> {
    for (const record of usage.list()) {
      if (signal.aborted) return;
      if (record.sizes === null || clock.wall() - record.measuredAt >= remeasureMs)
        await usage.measure(record, signal);
    }
    await deps.tools.measure?.(signal);
  }

  async function evictTools(dryRun: boolean): Promise<SweepResult[]> {
    const { maxResultBytes, toolTtlMs, maxToolBytes } = limits;
    const order = { now: clock.wall(), dryRun, signal, log };
    const results: EvictionLimits = { ttlMs: deps.resultTtlMs, maxBytes: maxResultBytes };
    const tools: EvictionLimits = { ttlMs: toolTtlMs, maxBytes: maxToolBytes };
    return [
      await evict(deps.results, { ...results, ...order }),
      await evict(deps.tools, { ...tools, ...order }),
    ];
  }

  return {
    limits: () => limits,
    async setLimits(changes) {
      limits = changeRetention(limits, changes);
      return sweep(false);
    },
    async usage() {
      toolEntries = await deps.tools.list().catch((error: unknown) => {
        log.warn({ err: error }, 'tool usage unknown');
        return toolEntries;
      });
      return usageOf(usage.list(), jobs.resultBytes(), toolEntries, await lookAtVolume());
    },
    sweep: ({ dryRun = false } = {}) => sweep(dryRun),
    noRoomFor(dashboardId, bytes) {
      if (clock.steady() - free.at >= freeMs) void lookAtVolume();
      const { minFreeDiskBytes } = deps;
      const facts = { taken: takenNow(), limits, freeBytes: free.bytes, minFreeDiskBytes };
      const none = noRoomFor(dashboardId, bytes, facts);
      const isShort = free.bytes !== null && free.bytes < minFreeDiskBytes + bytes;
      if (none === null && isShort && !isTrimming && !signal.aborted) {
        isTrimming = true;
        inBackground(turns.run(() => trimBuilds(false, bytes)).finally(() => (isTrimming = false)));
      }
      return none;
    },
    async close() {
      stopping.abort();
      cancelTimer();
      stopFollowing();
      await turns.idle();
      await usage.settled();
    },
  };
}

/** Whether a device is none of those. */
function isNone(gone: readonly Removed[]): (record: DeviceRecord) => boolean {
  const names = new Set(gone.map(({ item }) => JSON.stringify(item)));
  return (record) => !names.has(JSON.stringify(itemOf(record)));
}
