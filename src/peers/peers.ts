/**
 * The approved peers, in memory and in `peers.json`. An approval is on disk before it takes effect, a revocation takes
 * effect before it is on disk, and what could not be saved is tried again until it is. The file has the format of Device
 * Builder 1.26, so it can be taken over and given back: unknown fields are kept, an invalid row costs only its own pairing.
 */
import { copyFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/calls.js';
import { ReceiverError, storageError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { foldId, type NewTrust } from './identity.js';
import { asideName, makeParent, readIfAny, setAside, warnRestored, wayOut } from './kept-file.js';
import {
  changeRow,
  newRow,
  peerOf,
  readPeersFile,
  writePeersFile,
  type NewPeer,
  type Peer,
  type PeerChanges,
  type Row,
} from './peer-row.js';

/** In the state directory. */
export const peersFile = 'peers.json';

export type PeerTable = Awaited<ReturnType<typeof openPeerTable>>;

export interface PeerTableDeps extends NewTrust {
  /** Runs a write that has to succeed on a full volume. */
  readonly spend?: (<T>(work: () => Promise<T>) => Promise<T>) | undefined;
  readonly clock: Pick<Clock, 'wall' | 'after'>;
  readonly log: Log;
}

const firstRetryMs = 1_000;
const longestRetryMs = 60_000;

/**
 * Reads `peers.json` in the directory. Throws `STATE` for a file of a newer release, and for a damaged or lost one unless
 * `newIdentity` allows to start without peers; and system errors.
 */
export async function openPeerTable(
  directory: string,
  { clock, log, newIdentity, isReliedOn, spend = (work) => work() }: PeerTableDeps,
) {
  const file = join(directory, peersFile);
  const rows = new Map<string, Row>();
  /** Keys that this receiver has revoked: when, and when they had been paired, in seconds since 1970. */
  const removed = new Map<string, { readonly at: number; readonly pairedAt: number }>();
  /** Those of them that are not on disk yet. */
  const unsaved = new Set<string>();
  /** The times of approvals that could not be saved: what a failed write left in the file does not count. */
  const failed = new Map<string, number>();
  /** The keys in the file when it was last read or written. */
  let known = new Set<string>();
  /** The version of the file when it was last read: every stranger's call checks it, and the file can be large. */
  let seen = '';
  let hasFile = false;
  /** The file has rows that are unusable, so it is copied before it is overwritten. */
  let isWorthCopy = false;
  const turns = createSerialQueue();
  let refreshes = false;
  let isBehind = false;
  let retryMs = firstRetryMs;
  let cancelRetry = (): void => {};
  let isClosed = false;

  /** Writes the table, with `more` rows that are not in it yet. Throws `STORAGE`, and then tries again later. */
  async function save(more: readonly Row[] = []): Promise<void> {
    cancelRetry();
    const wasBehind = isBehind;
    isBehind = true;
    try {
      await makeParent(file);
      await mergeChanges();
      await keepUnusable();
      const all = [...rows.values(), ...more];
      await spend(() => writePeersFile(file, all));
      known = new Set(all.map(keyOf));
      hasFile = true;
    } catch (error) {
      if (!wasBehind) log.error({ file, err: error }, 'peers file not saved, trying again');
      if (!isClosed) cancelRetry = clock.after(retryMs, () => void turns.run(() => save()).catch(() => {}));
      retryMs = Math.min(2 * retryMs, longestRetryMs);
      throw storageError('the paired dashboards cannot be saved', error, { file });
    }
    if (wasBehind) log.info({ file }, 'peers file saved after a failure');
    isBehind = false;
    retryMs = firstRetryMs;
    unsaved.clear();
  }

  async function keepUnusable(): Promise<void> {
    if (!isWorthCopy) return;
    const aside = asideName(file);
    await copyFile(file, aside);
    isWorthCopy = false;
    log.warn({ file, aside }, 'peers file has invalid rows, skipped: their dashboards must pair again');
  }

  /** Merges the changes that another receiver has made to the file. */
  async function mergeChanges(): Promise<void> {
    // Before the read, so that a later change is found next time.
    seen = await versionOf(file);
    const content = await readIfAny(file);
    const found = content && readPeersFile(content);
    if (content && !found) setAside(file, content, log);
    if (!found) return;
    hasFile = true;
    if (found.badRows > 0) isWorthCopy = true;
    const present = new Set(found.rows.map(keyOf));
    for (const key of known) if (!present.has(key)) rows.delete(key);
    for (const row of found.rows) {
      const key = keyOf(row);
      const mine = rows.get(key);
      const revoked = removed.get(key);
      // The clock could have been set back since, so the same pairing stays revoked whatever its time.
      const isRevoked = revoked && (row.paired_at <= revoked.at || row.paired_at === revoked.pairedAt);
      const isNew = !mine && !isRevoked && row.paired_at !== failed.get(key);
      // Our rows are on disk before they are in the table, so a different key is a later approval by the other receiver.
      if (isNew || (mine && mine.pin_sha256 !== row.pin_sha256)) rows.set(key, row);
    }
    known = present;
  }

  /** Follows the file, and writes it again if it is damaged or was removed: memory has all rows. */
  async function follow(): Promise<void> {
    if ((await versionOf(file)) !== seen) await mergeChanges();
    if (!hasFile || (await versionOf(file)) !== '') return;
    await save();
    warnRestored(file, log);
  }

  function rowOf(id: DashboardId): Row | undefined {
    const row = rows.get(foldId(id));
    return row?.dashboard_id === id ? row : undefined;
  }

  async function load(): Promise<void> {
    const version = await versionOf(file);
    const content = await readIfAny(file);
    if (content === undefined) {
      if (newIdentity !== true && (await isReliedOn?.()) === true)
        throw lost('is missing, although builds exist');
      return;
    }
    const found = readPeersFile(content);
    if (found === undefined) {
      if (newIdentity !== true) throw lost('is damaged');
      setAside(file, content, log);
      return;
    }
    for (const row of found.rows) if (!rows.has(keyOf(row))) rows.set(keyOf(row), row);
    seen = version;
    hasFile = true;
    known = new Set(rows.keys());
    isWorthCopy = found.badRows > 0 || found.rows.length > rows.size;
    // A full disk does not prevent the start.
    if (isWorthCopy) await save().catch(() => {});
  }

  function lost(what: string): ReceiverError {
    const message = `the paired dashboards (${peersFile} in the state directory) cannot be read: the file ${what}`;
    const loss = 'all dashboards must then pair again';
    return new ReceiverError('STATE', `${message}; ${wayOut(peersFile, loss)}`, { file });
  }

  await load();

  return {
    list: (): readonly Peer[] => [...rows.values()].map(peerOf),
    get(id: DashboardId): Peer | undefined {
      const row = rowOf(id);
      return row && peerOf(row);
    },
    /** Whether another peer's id differs only in letter case, so that both could name the same directory. */
    hasTwin: (id: DashboardId): boolean => rows.has(foldId(id)) && rowOf(id) === undefined,
    /** Adds the peer once it is on disk. Throws `PAIRING` when the id is taken, `STORAGE` when it cannot be saved. */
    add(peer: NewPeer): Promise<Peer> {
      return turns.run(async () => {
        const key = foldId(peer.dashboardId);
        await mergeChanges().catch((error: unknown) => {
          throw storageError('the paired dashboards cannot be read', error, { file });
        });
        if (rows.has(key)) throw new ReceiverError('PAIRING', 'this dashboard is already approved');
        const row = newRow(peer);
        failed.set(key, row.paired_at);
        await save([row]);
        failed.delete(key);
        removed.delete(key);
        rows.set(key, row);
        return peerOf(row);
      });
    },
    /** Changes the peer, and saves it soon. Ignores an unknown id. */
    refresh(id: DashboardId, changes: PeerChanges): void {
      const row = rowOf(id);
      const changed = row && changeRow(row, changes);
      if (!changed || changed === row) return;
      rows.set(foldId(id), changed);
      if (refreshes) return;
      refreshes = true;
      void turns
        .run(() => {
          refreshes = false;
          return save();
        })
        .catch(() => {});
    },
    /**
     * Removes the peer at once; resolves when that is on disk. False when there is none. Throws `STORAGE` when it cannot be
     * saved; it is then tried again, and a repeated call waits for that.
     */
    async remove(id: DashboardId): Promise<boolean> {
      const key = foldId(id);
      const row = rowOf(id);
      if (row !== undefined) {
        rows.delete(key);
        removed.set(key, { at: clock.wall() / 1_000, pairedAt: row.paired_at });
        unsaved.add(key);
      } else if (!unsaved.has(key)) return false;
      await turns.run(async () => {
        if (unsaved.has(key)) await save();
      });
      return true;
    },
    /** Applies the approvals and revocations of another receiver on this directory. A failure is logged, not thrown. */
    reread: (): Promise<void> =>
      turns.run(follow).catch((error: unknown) => log.warn({ file, err: error }, 'peers file not reread')),
    /** Resolves when all changes are on disk, or after a last attempt. */
    async close(): Promise<void> {
      isClosed = true;
      await turns.run(async () => {
        if (isBehind) await save().catch(() => {});
      });
      await turns.idle();
      cancelRetry();
    },
  };
}

/** Whether dashboards are paired, as far as the file shows; a damaged one counts as yes. Throws system errors. */
export async function hasPeers(directory: string): Promise<boolean> {
  const content = await readIfAny(join(directory, peersFile));
  return content !== undefined && readPeersFile(content)?.rows.length !== 0;
}

/** Changes with each write, which creates a new file. Empty if the file is missing. Throws system errors. */
async function versionOf(file: string): Promise<string> {
  try {
    const found = await stat(file, { bigint: true });
    return `${found.ino} ${found.mtimeNs} ${found.size}`;
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return '';
    throw error;
  }
}

function keyOf(row: Row): string {
  return foldId(row.dashboard_id);
}
