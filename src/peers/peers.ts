/**
 * The approved peers, in memory and in `peers.json`. An approval is on disk before it is announced; a revocation takes
 * effect before it is on disk. The file has the format of Device Builder 1.26, so it can be taken over and given back:
 * unknown fields are kept, an invalid row costs only its own pairing, and a damaged file is renamed, never overwritten.
 */
import { copyFile, mkdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/serial-queue.js';
import { ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { foldId } from './identity.js';
import { asideName, readIfAny } from './kept-file.js';
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

export interface PeerTable {
  list(): readonly Peer[];
  get(id: DashboardId): Peer | undefined;
  /** Whether another peer's id differs only in letter case, so that both could name the same directory. */
  hasTwin(id: DashboardId): boolean;
  /** Adds the peer once it is on disk. Throws `PAIRING` when the id is taken. */
  add(peer: NewPeer): Promise<Peer>;
  /** Changes the peer, and saves it soon. Ignores an unknown id. */
  refresh(id: DashboardId, changes: PeerChanges): void;
  /** Removes the peer at once; resolves when that is on disk. False when there is none. */
  remove(id: DashboardId): Promise<boolean>;
  /** Applies the approvals and revocations of another receiver on this directory. A failure is logged, not thrown. */
  reread(): Promise<void>;
  /** Resolves when all changes are on disk. */
  close(): Promise<void>;
}

export interface PeerTableDeps {
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

/** Reads `peers.json` in the directory. Throws `STATE` for a file of a newer release, and system errors. */
export async function openPeerTable(directory: string, { clock, log }: PeerTableDeps): Promise<PeerTable> {
  const file = join(directory, peersFile);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const rows = new Map<string, Row>();
  /** Keys that this receiver has revoked, and when, in seconds since 1970. */
  const removed = new Map<string, number>();
  /** The keys in the file when it was last read or written. */
  let known = new Set<string>();
  /** The version of the file when it was last read: every stranger's call checks it, and the file can be large. */
  let seen = '';
  const turns = createSerialQueue();
  let refreshes = false;

  /** Writes the table, with `more` rows that are not in it yet. */
  async function save(more: readonly Row[] = []): Promise<void> {
    await mergeChanges();
    const all = [...rows.values(), ...more];
    await writePeersFile(file, all);
    known = new Set(all.map(keyOf));
  }

  /** Merges the changes that another receiver has made to the file. */
  async function mergeChanges(): Promise<void> {
    // Before the read, so that a later change is found next time.
    const version = await versionOf(file);
    const content = await readIfAny(file);
    // Also for a damaged file, or every call would read it again.
    seen = version;
    const found = content && readPeersFile(content)?.rows;
    if (!found) return;
    const present = new Set(found.map(keyOf));
    for (const key of known) if (!present.has(key)) rows.delete(key);
    for (const row of found) {
      const key = keyOf(row);
      const mine = rows.get(key);
      const isNew = !mine && row.paired_at > (removed.get(key) ?? -Infinity);
      // Our rows are on disk before they are in the table, so a different key is a later approval by the other receiver.
      if (isNew || (mine && mine.pin_sha256 !== row.pin_sha256)) rows.set(key, row);
    }
    known = present;
  }

  function rowOf(id: DashboardId): Row | undefined {
    const row = rows.get(foldId(id));
    return row?.dashboard_id === id ? row : undefined;
  }

  async function load(): Promise<void> {
    const content = await readIfAny(file);
    if (content === undefined) return;
    const found = readPeersFile(content);
    const aside = asideName(file);
    if (found === undefined) {
      await rename(file, aside);
      return log.warn({ file, aside }, 'peers file damaged, set aside: all dashboards must pair again');
    }
    let lost = found.badRows;
    for (const row of found.rows) {
      if (rows.has(keyOf(row))) lost += 1;
      else rows.set(keyOf(row), row);
    }
    known = new Set(rows.keys());
    if (lost === 0) return;
    await copyFile(file, aside);
    await save();
    log.warn({ file, aside, lost }, 'peers file has invalid rows, skipped: their dashboards must pair again');
  }

  await load();

  return {
    list: () => [...rows.values()].map(peerOf),
    get(id) {
      const row = rowOf(id);
      return row && peerOf(row);
    },
    hasTwin: (id) => rows.has(foldId(id)) && rowOf(id) === undefined,
    add(peer) {
      return turns.run(async () => {
        const key = foldId(peer.dashboardId);
        await mergeChanges();
        if (rows.has(key)) throw new ReceiverError('PAIRING', 'this dashboard is already approved');
        const row = newRow(peer);
        await save([row]);
        rows.set(key, row);
        removed.delete(key);
        return peerOf(row);
      });
    },
    refresh(id, changes) {
      const row = rowOf(id);
      const changed = row && changeRow(row, changes);
      if (!changed || changed === row) return;
      rows.set(foldId(id), changed);
      if (refreshes) return;
      refreshes = true;
      turns
        .run(() => {
          refreshes = false;
          return save();
        })
        .catch((error: unknown) => log.error({ file, err: error }, 'peers file not saved'));
    },
    async remove(id) {
      if (rowOf(id) === undefined) return false;
      rows.delete(foldId(id));
      removed.set(foldId(id), clock.wall() / 1_000);
      await turns.run(() => save());
      return true;
    },
    reread: () =>
      turns
        .run(async () => {
          if ((await versionOf(file)) !== seen) await mergeChanges();
        })
        .catch((error: unknown) => log.warn({ file, err: error }, 'peers file not reread')),
    close: turns.idle,
  };
}

/** Changes with each write, which creates a new file. Empty if the file is missing. */
async function versionOf(file: string): Promise<string> {
  const found = await stat(file, { bigint: true }).catch(() => null);
  return found === null ? '' : `${found.ino} ${found.mtimeNs} ${found.size}`;
}

function keyOf(row: Row): string {
  return foldId(row.dashboard_id);
}
