/**
 * The approved peers: in memory for every look-up, in `peers.json` for the next start.
 *
 * An approval is on disk before anybody hears of it, a revocation holds before it is on disk. The file has Device
 * Builder's rows (1.26), so its file can be taken over and given back: fields that we do not know stay, a bad row
 * costs that row and not all pairings, and what cannot be read is set aside, never overwritten.
 */
import { copyFile, mkdir, rename, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/serial-queue.js';
import { writeAtomic } from '../disk/atomic-write.js';
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
  /** Whether another peer has this id in another case, so that both could mean one directory. */
  hasTwin(id: DashboardId): boolean;
  /** Resolves when the peer is on disk, and only then is it in the table. Throws `PAIRING` when the id is taken. */
  add(peer: NewPeer): Promise<Peer>;
  /** Takes over what the peer says now; saved soon. Unknown ids are ignored. */
  refresh(id: DashboardId, changes: PeerChanges): void;
  /** Removes the peer at once; resolves when that is on disk. False when there was none. */
  remove(id: DashboardId): Promise<boolean>;
  /**
   * Takes over what another receiver on this directory has approved or revoked. Never rejects: a file that cannot be
   * read now is in the log, and the table stays as it was.
   */
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
  /** Keys of the file as it was last seen here. */
  let known = new Set<string>();
  /** Which writing of the file that was. Every stranger's call looks at it, and the file may be large. */
  let seen = '';
  const turns = createSerialQueue();
  let refreshes = false;

  /** Writes the table, and `more` where that is about to join it. */
  async function save(more: readonly Row[] = []): Promise<void> {
    await takeOverChanges();
    const all = [...rows.values(), ...more];
    await writeAtomic(file, JSON.stringify({ version: 1, peers: all }), { mode: 0o600 });
    known = new Set(all.map(keyOf));
  }

  /** Another receiver on this directory may have approved or revoked peers since the file was last seen here. */
  async function takeOverChanges(): Promise<void> {
    // Before it is read: what comes after the look is looked for again.
    const version = await versionOf(file);
    const content = await readIfAny(file);
    // A damaged one as well, or every call would read it again.
    seen = version;
    const found = content && readPeersFile(content)?.rows;
    if (!found) return;
    const present = new Set(found.map(keyOf));
    for (const key of known) if (!present.has(key)) rows.delete(key);
    for (const row of found) {
      const key = keyOf(row);
      const mine = rows.get(key);
      const isNew = !mine && row.paired_at > (removed.get(key) ?? -Infinity);
      // Of ours nothing is in the table before it is on disk: another key was approved by the other one, later.
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
        await takeOverChanges();
        if (rows.has(key)) throw new ReceiverError('PAIRING', 'this dashboard is approved already');
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
          if ((await versionOf(file)) !== seen) await takeOverChanges();
        })
        .catch((error: unknown) => log.warn({ file, err: error }, 'peers file not reread')),
    close: turns.idle,
  };
}

/** Another one after each write, which makes a new file. Empty when there is none. */
async function versionOf(file: string): Promise<string> {
  const found = await stat(file, { bigint: true }).catch(() => null);
  return found === null ? '' : `${found.ino} ${found.mtimeNs} ${found.size}`;
}

function keyOf(row: Row): string {
  return foldId(row.dashboard_id);
}
