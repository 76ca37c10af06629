/**
 * The receiver's own key, one for its whole life. Peers pin it: when it changes, every one of them raises an alarm
 * and stops for good, so nothing here replaces a key that still works.
 */
import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { isReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { dashboardId, type DashboardId } from '../paths/index.js';
import { pinOf } from '../protocol/fingerprint.js';
import { loadOrCreate } from './kept-file.js';

export interface Identity {
  /** The raw X25519 key, 32 bytes. The only secret of the link. */
  readonly privateKey: Buffer;
  /** The raw public key, 32 bytes. */
  readonly publicKey: Buffer;
  /** What peers compare and pin; see {@link pinOf}. */
  readonly pin: string;
}

export const keyBytes = 32;
/** In the state directory. */
export const identityFile = 'identity.key';
/** The DER that stands before a raw X25519 key in PKCS #8. */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** Loads the {@link identityFile} (32 raw bytes, mode 0600) from the directory, or makes it. Throws system errors. */
export async function loadIdentity(directory: string, log: Log): Promise<Identity> {
  const kept = {
    what: 'the identity key',
    parse: (content: Buffer) => (content.length === keyBytes ? identityOf(content) : undefined),
    create: () => randomBytes(keyBytes),
  };
  return loadOrCreate(join(directory, identityFile), kept, log);
}

/** The identity of a raw private key of 32 bytes. */
export function identityOf(privateKey: Uint8Array): Identity {
  const der = Buffer.concat([pkcs8Prefix, privateKey]);
  const key = createPublicKey(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }));
  const publicKey = key.export({ format: 'der', type: 'spki' }).subarray(-keyBytes);
  return Object.freeze({ privateKey: der.subarray(-keyBytes), publicKey, pin: pinOf(publicKey) });
}

/**
 * The name under which this installation is known to the dashboards that it talks to. It is no secret and proves
 * nothing, but a peer's builds and pairing hang on it, so it is made once and kept.
 */

/** A fresh id: 24 random bytes, 32 characters of base64url. */
export function newDashboardId(): DashboardId {
  return dashboardId(randomBytes(24).toString('base64url'));
}

/** In the state directory. */
export const dashboardIdFile = 'dashboard-id';

/** What of the text may stand in a DNS label: in lower case, only `a-z 0-9 -`, and `_` as `-`. */
export function dnsLabel(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9_-]/g, '')
    .replaceAll('_', '-');
}

/** The same for ids that could mean one directory: they name directories, and some file systems do not tell `A` from `a`. */
export function foldId(id: string): string {
  return id.toLowerCase();
}

/** The text itself where it is an id, else an id of the same {@link dnsLabel}. */
export function idOfSameName(text: string): DashboardId {
  return idOrUndefined(text) ?? dashboardId(dnsLabel(text).slice(0, 64).padEnd(8, '-'));
}

/** Loads the {@link dashboardIdFile} from the directory, or makes it. Throws system errors. */
export async function loadDashboardId(directory: string, log: Log): Promise<DashboardId> {
  const kept = {
    what: 'the dashboard id',
    parse: (content: Buffer) => idOrUndefined(content.toString('latin1').trim()),
    create: () => Buffer.from(`${newDashboardId()}\n`),
  };
  return loadOrCreate(join(directory, dashboardIdFile), kept, log);
}

/** The id when it has the right form, else undefined. */
export function idOrUndefined(text: unknown): DashboardId | undefined {
  try {
    return dashboardId(text);
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return undefined;
    throw error;
  }
}
