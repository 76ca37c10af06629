/**
 * The receiver's key and dashboard id, each created once and kept. Peers pin the key: when it changes, every peer raises
 * an alarm and stops for good, so a working key is never replaced. The id is neither secret nor a proof, but names
 * a peer's builds and pairing.
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
  /** See {@link pinOf}. */
  readonly pin: string;
}

export const keyBytes = 32;
/** In the state directory, like {@link dashboardIdFile}. */
export const identityFile = 'identity.key';
export const dashboardIdFile = 'dashboard-id';
/** The DER in front of a raw X25519 key in PKCS #8. */
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** Loads the key (32 raw bytes, mode 0600) from the state directory, or creates it. */
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

/** 24 random bytes as 32 characters of base64url. */
export function newDashboardId(): DashboardId {
  return dashboardId(randomBytes(24).toString('base64url'));
}

/** The text in lower case, with `_` as `-` and without any other characters than `a-z 0-9 -`. */
export function dnsLabel(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9_-]/g, '')
    .replaceAll('_', '-');
}

/** Equal for ids that can name the same directory, because some file systems ignore letter case. */
export function foldId(id: string): string {
  return id.toLowerCase();
}

/** The text if it is a valid id, otherwise an id with the same {@link dnsLabel}. */
export function idOfSameName(text: string): DashboardId {
  return idOrUndefined(text) ?? dashboardId(dnsLabel(text).slice(0, 64).padEnd(8, '-'));
}

/** Loads the id from the state directory, or creates it. */
export async function loadDashboardId(directory: string, log: Log): Promise<DashboardId> {
  const kept = {
    what: 'the dashboard id',
    parse: (content: Buffer) => idOrUndefined(content.toString('latin1').trim()),
    create: () => Buffer.from(`${newDashboardId()}\n`),
  };
  return loadOrCreate(join(directory, dashboardIdFile), kept, log);
}

/** The id, or undefined if its form is invalid. */
export function idOrUndefined(text: unknown): DashboardId | undefined {
  try {
    return dashboardId(text);
  } catch (error) {
    if (isReceiverError(error, 'TRAVERSAL')) return undefined;
    throw error;
  }
}
