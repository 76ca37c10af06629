/**
 * Takes over the key, the peers and the id of a Device Builder build server (1.26), so that its clients find the same
 * server and need not pair again. Its files are only read. A client that sees another key stops for good, so the takeover
 * is all or nothing: the key is written last, and a receiver that already has a key never gets another.
 */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { makeDirectory, writeAtomic } from '../disk/atomic-write.js';
import { parseJson } from '../disk/json-file.js';
import { ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import { dashboardIdFile, idOfSameName, identityFile, keyFault } from './identity.js';
import { readIfAny, setAside, wayOut } from './kept-file.js';
import { readPeersFile, type Row, writePeersFile } from './peer-row.js';
import { hasPeers, peersFile } from './peers.js';

/** In Device Builder's configuration directory. */
const deviceBuilder = {
  key: '.device-builder-peer-link-key.bin',
  peers: '.receiver_peers.json',
  settings: '.device-builder.json',
  /** Locked while it runs. */
  lock: '.esphome/.device-builder.lock',
};

export interface TakeOverOptions {
  /** Device Builder's configuration directory. */
  readonly from: string;
  readonly stateDir: string;
  /** See {@link NewTrust}. */
  readonly newIdentity?: boolean | undefined;
  readonly log: Log;
}

/**
 * Does nothing after an earlier takeover, even if Device Builder's files are gone. Throws `STATE`, with nothing changed,
 * when the files are unusable, when Device Builder still runs, or when this receiver has another key; and system errors.
 */
export async function takeOver({ from, stateDir, newIdentity, log }: TakeOverOptions): Promise<void> {
  const theirKey = await readIfAny(join(from, deviceBuilder.key));
  const ownKey = await readIfAny(join(stateDir, identityFile));
  // Loading the identity refuses a key that was damaged or lost here since.
  const isOursLost = theirKey === undefined && (await hasPeers(stateDir));
  if (isOursLost || (ownKey && keyFault(ownKey) !== null)) return;
  if (ownKey !== undefined) {
    if (theirKey === undefined || theirKey.equals(ownKey)) return;
    throw takeOverError('this receiver already has a key of its own, which its peers have pinned', {
      stateDir,
    });
  }
  if (theirKey === undefined) throw takeOverError('the directory has no key of a Device Builder', { from });
  if (keyFault(theirKey) !== null) throw takeOverError("Device Builder's key is damaged", { from });
  const rows = await readRows(from, log);
  const theirId = await readId(from, log);
  // Two servers with one key would take each other's clients.
  if (await isFlocked(join(from, deviceBuilder.lock))) {
    throw takeOverError('Device Builder is still running: stop it first', { from });
  }
  await makeDirectory(stateDir);
  await replaceOwnPeers(join(stateDir, peersFile), rows, newIdentity === true, log);
  if (theirId !== undefined) {
    await writeAtomic(join(stateDir, dashboardIdFile), `${idOfSameName(theirId)}\n`, { mode: 0o600 });
  }
  await writeAtomic(join(stateDir, identityFile), theirKey, { mode: 0o600 });
  log.info({ from, peers: rows.length }, "Device Builder's key and peers taken over");
}

async function readRows(from: string, log: Log): Promise<readonly Row[]> {
  const content = await readIfAny(join(from, deviceBuilder.peers));
  if (content === undefined) return [];
  const found = readPeersFile(content);
  if (found === undefined) throw takeOverError("Device Builder's peers file is damaged", { from });
  if (found.badRows > 0) {
    const { badRows } = found;
    log.warn({ from, badRows }, 'peers file has invalid rows, skipped: their dashboards must pair again');
  }
  return found.rows;
}

/**
 * Device Builder's dashboard id, by which it is announced and which clients store as its address: from the block of 1.26,
 * or that of older releases. Without it the announced name changes, but no pairing is lost.
 */
async function readId(from: string, log: Log): Promise<string | undefined> {
  const content = await readIfAny(join(from, deviceBuilder.settings));
  if (content === undefined) return undefined;
  const settings = parseJson(content);
  const id = idIn(settings, '_dashboard_identity') ?? idIn(settings, '_remote_build');
  if (id === undefined) {
    log.warn({ from }, "Device Builder's settings have no dashboard id, made a new one");
  }
  return id;
}

/** Any non-empty string, as in Device Builder. */
function idIn(settings: unknown, block: string): string | undefined {
  const id = fieldOf(fieldOf(settings, block), 'dashboard_id');
  return typeof id === 'string' && id !== '' ? id : undefined;
}

function fieldOf(value: unknown, name: string): unknown {
  const isObject = typeof value === 'object' && value !== null && Object.hasOwn(value, name);
  return isObject ? Reflect.get(value, name) : undefined;
}

/**
 * A peers file without a key is from an interrupted takeover. Any other is one whose key was lost: its peers pinned that
 * key, and Device Builder's file can name one that was revoked here since.
 */
async function replaceOwnPeers(
  file: string,
  rows: readonly Row[],
  newIdentity: boolean,
  log: Log,
): Promise<void> {
  const own = await readIfAny(file);
  const ownRows = own && readPeersFile(own)?.rows;
  if (own && JSON.stringify(ownRows) !== JSON.stringify(rows)) {
    if (!newIdentity) {
      const loss = "only Device Builder's dashboards are then paired";
      const way = wayOut(identityFile, loss);
      throw takeOverError(`${identityFile} is missing beside a ${peersFile} with other dashboards; ${way}`, {
        file,
      });
    }
    setAside(file, own, log);
  }
  await writePeersFile(file, rows);
}

function takeOverError(message: string, facts: Readonly<Record<string, unknown>>): ReceiverError {
  return new ReceiverError('STATE', `takeover refused: ${message}`, facts);
}

/**
 * Whether a program holds a `flock` on the file. Node cannot take such a lock, but Linux lists the holders; on other
 * systems the result is false.
 */
async function isFlocked(file: string): Promise<boolean> {
  try {
    const { dev, ino } = await stat(file, { bigint: true });
    const inode = `${hex(majorOf(dev))}:${hex(minorOf(dev))}:${ino}`;
    return (await readFile('/proc/locks', 'utf8'))
      .split('\n')
      .some((line) => line.includes(' FLOCK ') && line.split(/\s+/).includes(inode));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/** The major and minor halves of a device number, as `stat` packs them. */
function majorOf(dev: bigint): bigint {
  return ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
}

function minorOf(dev: bigint): bigint {
  return (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
}

function hex(value: bigint): string {
  return value.toString(16).padStart(2, '0');
}
