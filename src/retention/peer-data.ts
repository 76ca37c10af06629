/**
 * Records which key owns the data stored under a peer's id, and removes a peer's data. Peers choose their ids, ids are
 * not secret, and data can outlive its peer: the operator kept it, or a crash or a build prevented its removal. A
 * dashboard that pairs under the same id with another key must not find that data, download its firmware or build on
 * files planted in it, so the data is removed before the approval takes effect. Owner records lie outside the peer's own
 * directory, where no build can forge them.
 */
import { rm, rmdir } from 'node:fs/promises';
import { join, dirname } from 'node:path';

import * as z from 'zod';

import { createKeyedQueue, createSerialQueue } from '../async/calls.js';
import { hashName } from '../paths/segments.js';
import { nullUnlessRecord, readJsonFile, writeJsonFile } from '../disk/json-file.js';
import { namesIn } from '../disk/names.js';
import type { Reserve } from '../disk/reserve.js';
import { ReceiverError, storageError } from '../errors.js';
import type { JobService } from '../jobs/job-service.js';
import type { Log } from '../log.js';
import { dashboardId as parseId, type DashboardId, type DeviceSegment, type Layout } from '../paths/index.js';
import { foldId } from '../peers/identity.js';
import { removeDevice, type RemovalDeps } from './sweep.js';

export type Owners = ReturnType<typeof createOwners>;

export interface OwnersOptions {
  /** Runs a write that has to succeed on a full volume. */
  readonly spend: Reserve['spend'];
  /** Must exist, and holds owner records only. */
  readonly ownersDir: string;
  /** As `removePeerData`. */
  readonly removeData: (id: DashboardId) => Promise<boolean>;
  readonly log: Log;
}

const schema = z.object({ dashboardId: z.string().transform(parseId), pin: z.string() });
const format = { maxBytes: 4_096, parse: schema.parse };

export function createOwners({ ownersDir, removeData, spend, log }: OwnersOptions) {
  /** Serializes work per id: a removal must not reach what a new peer builds in the meantime. */
  const queue = createKeyedQueue();

  function enqueue<T>(id: DashboardId, work: (file: string) => Promise<T>): Promise<T> {
    const file = fileOf(ownersDir, id);
    return queue
      .run(file, () => work(file))
      .catch((error: unknown) => {
        throw storageError('the owner of stored data cannot be read or recorded', error, { dashboardId: id });
      });
  }

  /** `isKnown`: data without an owner is kept for this key. */
  function setOwner(id: DashboardId, pin: string, isKnown: boolean): Promise<void> {
    return enqueue(id, async (file) => {
      const owner = await readOwner(file);
      if (owner?.dashboardId === id && owner.pin === pin) return;
      if (owner !== null || !isKnown) await removeAll(id, owner?.dashboardId ?? id);
      await spend(() => writeJsonFile(file, { dashboardId: id, pin }));
    });
  }

  async function removeAll(...ids: readonly DashboardId[]): Promise<void> {
    for (const id of new Set(ids)) {
      if (await removeData(id)) continue;
      const message = 'the data of an earlier dashboard with this id cannot be removed yet; try again later';
      throw new ReceiverError('PAIRING', message, { dashboardId: id });
    }
  }

  return {
    /**
     * For a peer approved earlier: removes another key's data and adopts unowned data. Never rejects; false after a failure,
     * and then it must be repeated.
     */
    async adopt(id: DashboardId, pin: string): Promise<boolean> {
      try {
        await setOwner(id, pin, true);
        return true;
      } catch (error) {
        log.error({ dashboardId: id, err: error }, 'owner of stored data not recorded, trying again');
        return false;
      }
    },
    /** Whether stored data belongs to another key, as far as can be read. Never rejects. */
    isForeign: (id: DashboardId, pin: string): Promise<boolean> =>
      enqueue(id, async (file) => {
        const owner = await readOwner(file);
        return owner !== null && !(owner.dashboardId === id && owner.pin === pin);
      }).catch(() => true),
    /** Makes the key the owner; removes other and unowned data. Throws `PAIRING` if that fails, and `STORAGE`. */
    claim: (id: DashboardId, pin: string): Promise<void> => setOwner(id, pin, false),
    /** Whether an owner is recorded for this id, even of a former peer. */
    has: (id: DashboardId): Promise<boolean> =>
      enqueue(id, async (file) => (await readOwner(file))?.dashboardId === id),
    /** Removes all data of the id, after any removal already running. False when something is left. Throws `STORAGE`. */
    remove: (id: DashboardId): Promise<boolean> =>
      enqueue(id, async (file) => {
        const isGone = await removeData(id);
        if (isGone) await rm(file, { force: true });
        return isGone;
      }),
  };
}

/** One file for all ids that a file system could map to the same directory. */
function fileOf(ownersDir: string, id: DashboardId): string {
  return join(ownersDir, `${hashName('owner', foldId(id))}.json`);
}

/** Null when the record is missing or damaged. */
function readOwner(file: string): Promise<z.infer<typeof schema> | null> {
  return readJsonFile(file, format).catch(nullUnlessRecord);
}

/**
 * Forgets a peer's jobs when its key changes. Another receiver on the same directories can revoke a dashboard and approve
 * one with another key under the same id, but it cannot reach the jobs in this process. These must be gone before any
 * request is answered from the new table: a client that names a job of its id receives the job's result.
 */
export function createKeyChangeGuard({
  peers,
  forgetJobs: forget,
}: {
  /** The currently approved peers. At creation they own the jobs here. */
  readonly peers: () => readonly { readonly dashboardId: DashboardId; readonly pin: string }[];
  readonly forgetJobs: (id: DashboardId) => Promise<void>;
}) {
  const pins = new Map(peers().map(({ dashboardId, pin }) => [dashboardId, pin]));
  const checks = createSerialQueue();

  async function checkNow(): Promise<void> {
    for (const { dashboardId, pin } of peers()) {
      if (pins.get(dashboardId) === pin) continue;
      await forget(dashboardId);
      pins.set(dashboardId, pin);
    }
  }

  return {
    /** Records that the jobs of the id here belong to this key, or were just removed. */
    recordKey: (id: DashboardId, pin: string) => void pins.set(id, pin),
    /** Forgets the jobs of each id whose key has changed. Rejects when some remain; the next call tries again. */
    check: () => checks.run(checkNow),
  };
}

export interface PeerDataDeps extends RemovalDeps {
  readonly jobs: Pick<JobService, 'list' | 'remove' | 'cancelAllOf'>;
  readonly log: Log;
}

/** Forgets the peer's jobs, then removes its directories. Never rejects; false when something is left. */
export async function removePeerData(id: DashboardId, deps: PeerDataDeps): Promise<boolean> {
  const { layout, jobs, log } = deps;
  let isGone = true;
  async function attempt<T>(work: () => Promise<T>, facts: object = {}): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      isGone = false;
      log.error({ err: error, dashboardId: id, ...facts }, "revoked peer's data not removed");
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

/** Cancels the peer's jobs and removes them with their results. Tries all of them, then throws the first error. */
export async function forgetJobs(id: DashboardId, jobs: PeerDataDeps['jobs']): Promise<void> {
  await jobs.cancelAllOf(id);
  const own = jobs.list().filter((job) => job.dashboardId === id);
  const results = await Promise.allSettled(own.map((job) => jobs.remove(job.id)));
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** All entries of the peer's directory, under their names on disk; only those that the receiver made are segments. */
export async function devicesOf(layout: Layout, id: DashboardId): Promise<DeviceSegment[]> {
  return (await namesIn(peerDir(layout, id))) as DeviceSegment[];
}

function peerDir(layout: Layout, dashboardId: DashboardId): string {
  return dirname(layout.subtree({ dashboardId, device: 'any' as DeviceSegment }));
}
