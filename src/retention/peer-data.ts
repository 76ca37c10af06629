/**
 * Whose key the data under a peer's id belongs to.
 *
 * Ids are chosen by peers and no secret, and data may outlive its peer: kept by the operator's wish, or because a crash or
 * a build came in the way of its removal. Whoever pairs under the same id with another key must not find it, so it is gone
 * before that approval takes effect. Written outside the peer's own directory, where no build can forge it.
 */
import { rm, readdir, rmdir } from 'node:fs/promises';
import { join, dirname } from 'node:path';

import * as z from 'zod';

import { createKeyedQueue, createSerialQueue } from '../async/serial-queue.js';
import { hashName } from '../paths/segments.js';
import { nullUnlessRecord, readJsonFile, writeJsonFile } from '../disk/json-file.js';
import { ReceiverError, systemCode } from '../errors.js';
import type { JobService } from '../jobs/job-service.js';
import type { Log } from '../log.js';
import {
  dashboardId as asDashboardId,
  type DashboardId,
  type DeviceSegment,
  type Layout,
} from '../paths/index.js';
import { foldId } from '../peers/identity.js';
import { removeDevice, type RemovalDeps } from './sweep.js';

export interface Owners {
  /**
   * For a peer that was approved before: data that is on record as another key's is removed, and what is not on record
   * is taken for its own. Never rejects; what cannot be done is logged.
   */
  adopt(id: DashboardId, pin: string): Promise<void>;
  /**
   * Resolves when all that is under this id belongs to this key, or to nobody yet. Throws `PAIRING` when what another
   * key has left cannot be removed, and system errors.
   */
  claim(id: DashboardId, pin: string): Promise<void>;
  /** Whether data of this id is on record as somebody's, also of one that is no peer any more. */
  has(id: DashboardId): Promise<boolean>;
  /** Removes what is under the id, now or once a removal that is under way has ended. False when something is left. */
  remove(id: DashboardId): Promise<boolean>;
}

export interface OwnersOptions {
  /** Belongs to this alone, and must exist. */
  readonly ownersDir: string;
  /** Ends the jobs of the id and removes its data. False when something is left. */
  readonly removeData: (id: DashboardId) => Promise<boolean>;
  readonly log: Log;
}

const schema = z.object({ dashboardId: z.string().transform(asDashboardId), pin: z.string() });
const format = { maxBytes: 4_096, parse: schema.parse };

export function createOwners({ ownersDir, removeData, log }: OwnersOptions): Owners {
  /** What is done for one id, one after the other: a removal must not reach what a newcomer has built meanwhile. */
  const turns = createKeyedQueue();

  function inTurn<T>(id: DashboardId, work: (file: string) => Promise<T>): Promise<T> {
    const file = fileOf(ownersDir, id);
    return turns.run(file, () => work(file));
  }

  /** Makes the key the owner; `isKnown` when data without one is its own. */
  function own(id: DashboardId, pin: string, isKnown: boolean): Promise<void> {
    return inTurn(id, async (file) => {
      const owner = await readOwner(file);
      if (owner?.dashboardId === id && owner.pin === pin) return;
      if (owner !== null || !isKnown) await removeAll(id, owner?.dashboardId ?? id);
      await writeJsonFile(file, { dashboardId: id, pin });
    });
  }

  async function removeAll(...ids: readonly DashboardId[]): Promise<void> {
    for (const id of new Set(ids)) {
      if (await removeData(id)) continue;
      const message = 'what an earlier dashboard of this id has left cannot be removed yet';
      throw new ReceiverError('PAIRING', message, { dashboardId: id });
    }
  }

  return {
    async adopt(id, pin) {
      await own(id, pin, true).catch((error: unknown) => {
        log.error(
          { dashboardId: id, err: error },
          'stored data for this dashboard id belongs to a different key',
        );
      });
    },
    // Data of an unknown owner is nobody's to give away.
    claim: (id, pin) => own(id, pin, false),
    has: (id) => inTurn(id, async (file) => (await readOwner(file))?.dashboardId === id),
    remove: (id) =>
      inTurn(id, async (file) => {
        const isGone = await removeData(id);
        if (isGone) await rm(file, { force: true });
        return isGone;
      }),
  };
}

/** One for all ids that could mean one directory. */
function fileOf(ownersDir: string, id: DashboardId): string {
  return join(ownersDir, `${hashName('owner', foldId(id))}.json`);
}

/** Null when there is none, or it is damaged. */
function readOwner(file: string): Promise<z.infer<typeof schema> | null> {
  return readJsonFile(file, format).catch(nullUnlessRecord);
}

/**
 * Whose jobs this receiver has under each id. Another receiver on the same directories can revoke a dashboard and let in
 * one with another key under the same id; it removes what it knows of, and cannot reach the jobs that stand here. They are
 * gone before anybody is answered by the new table: whoever names a job of an id is handed its result.
 */
export interface KeyChangeGuard {
  /** What stands under the id here is this key's, or has just been removed. */
  note(id: DashboardId, pin: string): void;
  /** Forgets the jobs of each id whose key is another one now. Rejects when some stay; the next call tries again. */
  check(): Promise<void>;
}

export interface KeyChangeGuardOptions {
  /** The approved peers, as they are now. */
  readonly peers: () => readonly { readonly dashboardId: DashboardId; readonly pin: string }[];
  /** Ends the jobs that this receiver has of the id, and forgets them with their results. */
  readonly forgetJobs: (id: DashboardId) => Promise<void>;
}

/** Takes what stands here for the keys' of the peers that there are now. */
export function createKeyChangeGuard({ peers, forgetJobs: forget }: KeyChangeGuardOptions): KeyChangeGuard {
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
    note: (id, pin) => void pins.set(id, pin),
    check: () => checks.run(checkNow),
  };
}

/**
 * Removes what a revoked peer has left here. Ids are chosen by peers and no secret: whoever pairs later under the
 * same one would otherwise find the builds of the first, download its firmware, or be handed what it has planted.
 */
export interface PeerDataDeps extends RemovalDeps {
  readonly jobs: Pick<JobService, 'list' | 'remove' | 'cancelAllOf'>;
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
      const named = { err: error, dashboardId: id, ...facts };
      log.error(named, "revoked peer's data not removed");
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
