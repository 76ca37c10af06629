/**
 * The receiver's own key, one for its whole life. Peers pin it: when it changes, every one of them raises an alarm
 * and stops for good, so nothing here replaces a key that still works.
 */
import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import { join } from 'node:path';

import type { Log } from '../log.js';
import { loadOrCreate } from './kept-file.js';
import { pinOf } from './pin.js';

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
