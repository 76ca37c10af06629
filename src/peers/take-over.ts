/**
 * Takes over the key, the peers and the name of a Device Builder build server (1.26), so that its clients find the same
 * server again and nobody has to pair anew. Its files are only read.
 *
 * A client that sees another key stops for good. So it is all or nothing: the key comes last, and a receiver that has
 * a key of its own already is never given another.
 */
import { mkdir, rename, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { writeAtomic } from '../disk/atomic-write.js';
import { ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import { dashboardIdFile, idOfSameName, identityFile, keyBytes } from './identity.js';
import { asideName, readIfAny } from './kept-file.js';
import { readPeersFile, type Row } from './peer-row.js';
import { peersFile } from './peers.js';

/** Below its configuration directory. */
const theirs = {
  key: '.device-builder-peer-link-key.bin',
  peers: '.receiver_peers.json',
  settings: '.device-builder.json',
  /** Held as long as it runs. */
  lock: '.esphome/.device-builder.lock',
};

export interface TakeOverOptions {
  /** The configuration directory of the other server. */
  readonly from: string;
  readonly stateDir: string;
  readonly log: Log;
}

/**
 * Does nothing when it was done before, also when the other server's files are gone by now. Throws `STATE` when they
 * cannot be used, when the other server still runs, or when this receiver has another key; and system errors. Then
 * nothing has changed.
 */
export async function takeOver({ from, stateDir, log }: TakeOverOptions): Promise<void> {
  const theirKey = await readIfAny(join(from, theirs.key));
  const ownKey = await readIfAny(join(stateDir, identityFile));
  if (ownKey !== undefined) {
    if (theirKey === undefined || theirKey.equals(ownKey)) return;
    throw refused('this receiver has a key of its own already, to which its peers are bound', { stateDir });
  }
  if (theirKey === undefined) throw refused('there is no key of a Device Builder build server', { from });
  if (theirKey.length !== keyBytes) throw refused('the key of the Device Builder is damaged', { from });
  const rows = await readRows(from, log);
  const theirId = await readId(from, log);
  // Two servers with one key would take each other's clients.
  if (await isFlocked(join(from, theirs.lock))) {
    throw refused('the Device Builder still runs: stop it first', { from });
  }
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  await setAside(join(stateDir, peersFile), log);
  await writeAtomic(join(stateDir, peersFile), JSON.stringify({ version: 1, peers: rows }), { mode: 0o600 });
  if (theirId !== undefined) {
    await writeAtomic(join(stateDir, dashboardIdFile), `${idOfSameName(theirId)}\n`, { mode: 0o600 });
  }
  await writeAtomic(join(stateDir, identityFile), theirKey, { mode: 0o600 });
  log.info({ from, peers: rows.length }, "Device Builder's key and peers taken over");
}

/** Nobody is paired when there is no file. */
async function readRows(from: string, log: Log): Promise<readonly Row[]> {
  const content = await readIfAny(join(from, theirs.peers));
  if (content === undefined) return [];
  const found = readPeersFile(content);
  if (found === undefined) throw refused('the peers file of the Device Builder is damaged', { from });
  if (found.badRows > 0) {
    const { badRows } = found;
    log.warn({ from, badRows }, 'peers file has invalid rows, skipped: their dashboards must pair again');
  }
  return found.rows;
}

/**
 * Its own dashboard id, which is the name that it is announced by and that clients store as its address: from where
 * 1.26 keeps it, else from where older releases did. Without one there is nothing to go on with, but also nothing lost
 * that pairing hangs on.
 */
async function readId(from: string, log: Log): Promise<string | undefined> {
  const content = await readIfAny(join(from, theirs.settings));
  if (content === undefined) return undefined;
  const settings = parseJson(content);
  const id = idIn(settings, '_dashboard_identity') ?? idIn(settings, '_remote_build');
  if (id === undefined) {
    log.warn({ from }, "Device Builder's settings have no dashboard id, made a new one");
  }
  return id;
}

function parseJson(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Any string that is not empty, as the original takes it. */
function idIn(settings: unknown, block: string): string | undefined {
  const id = fieldOf(fieldOf(settings, block), 'dashboard_id');
  return typeof id === 'string' && id !== '' ? id : undefined;
}

function fieldOf(value: unknown, name: string): unknown {
  const isObject = typeof value === 'object' && value !== null && Object.hasOwn(value, name);
  return isObject ? Reflect.get(value, name) : undefined;
}

/** Peers without a key are of a take-over that was cut short, or of a person who knows why. */
async function setAside(file: string, log: Log): Promise<void> {
  if ((await readIfAny(file)) === undefined) return;
  const aside = asideName(file);
  await rename(file, aside);
  log.warn({ file, aside }, 'peers file without a key set aside');
}

function refused(message: string, facts: Readonly<Record<string, unknown>>): ReceiverError {
  return new ReceiverError('STATE', `nothing is taken over: ${message}`, facts);
}

/**
 * Whether a program holds a `flock` on a file. Node cannot take such a lock, but Linux tells who has one; elsewhere the
 * answer is that nobody does.
 */

/** False for a file that is not there. Throws system errors. */
async function isFlocked(file: string): Promise<boolean> {
  try {
    const { dev, ino } = await stat(file, { bigint: true });
    const place = `${hex(majorOf(dev))}:${hex(minorOf(dev))}:${ino}`;
    return (await readFile('/proc/locks', 'utf8'))
      .split('\n')
      .some((line) => line.includes(' FLOCK ') && line.split(/\s+/).includes(place));
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/** The kernel's two halves of a device number, as `stat` packs them. */
function majorOf(dev: bigint): bigint {
  return ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
}

function minorOf(dev: bigint): bigint {
  return (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
}

function hex(value: bigint): string {
  return value.toString(16).padStart(2, '0');
}
