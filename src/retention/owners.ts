/**
 * Whose key the data under a peer's id belongs to.
 *
 * Ids are chosen by peers and no secret, and data may outlive its peer: kept by the operator's wish, or because a crash or
 * a build came in the way of its removal. Whoever pairs under the same id with another key must not find it, so it is gone
 * before that approval takes effect. Written outside the peer's own directory, where no build can forge it.
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import * as z from 'zod';

import { writeAtomic } from '../disk/atomic-write.js';
import { readRegular } from '../disk/open-regular.js';
import { ReceiverError, messageOf, systemCode } from '../errors.js';
import { parseJson } from '../esphome/json-object.js';
import { lockName } from '../locks/subtree-lease.js';
import type { Log } from '../log.js';
import { dashboardId, type DashboardId } from '../paths/index.js';
import { foldId } from '../peers/dashboard-id.js';

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

const maxRecordBytes = 4_096;
const schema = z.object({ dashboardId: z.string(), pin: z.string() });

export function createOwners({ ownersDir, removeData, log }: OwnersOptions): Owners {
  /** What is done for one id, one after the other: a removal must not reach what a newcomer has built meanwhile. */
  const turns = new Map<string, Promise<unknown>>();

  async function inTurn<T>(id: DashboardId, work: (file: string) => Promise<T>): Promise<T> {
    const file = fileOf(ownersDir, id);
    const result = (turns.get(file) ?? Promise.resolve()).then(() => work(file));
    const settled = result.catch(() => {});
    turns.set(file, settled);
    await settled;
    if (turns.get(file) === settled) turns.delete(file);
    return result;
  }

  /** Makes the key the owner; `isKnown` when data without one is its own. */
  function own(id: DashboardId, pin: string, isKnown: boolean): Promise<void> {
    return inTurn(id, async (file) => {
      const owner = await readOwner(file);
      if (owner?.dashboardId === id && owner.pin === pin) return;
      if (owner !== null || !isKnown) await removeAll(id, owner?.dashboardId ?? id);
      await writeAtomic(file, JSON.stringify({ dashboardId: id, pin }));
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
          { dashboardId: id, error: messageOf(error) },
          'data of another key is under the id of a peer',
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
  return join(ownersDir, `${lockName('owner', foldId(id))}.json`);
}

/** Null when there is none, or it cannot be read. */
async function readOwner(file: string): Promise<{ dashboardId: DashboardId; pin: string } | null> {
  try {
    const read = schema.parse(parseJson(await readRegular(file, maxRecordBytes)));
    return { dashboardId: dashboardId(read.dashboardId), pin: read.pin };
  } catch (error) {
    const code = systemCode(error);
    if (code === undefined || code === 'ENOENT') return null;
    throw error;
  }
}
