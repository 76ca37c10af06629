/**
 * X25519 with raw 32-byte keys, the form on the wire and on disk. `node:crypto` imports them as JWK, faster than as DER,
 * and each once: every handshake uses the receiver's key, and two agreements use each new key of the other side. OpenSSL
 * refuses a public key of low order, which would make the shared secret a constant.
 *
 * The public half of a new key is computed as the agreement with the base point (RFC 7748, section 6.1), because exporting
 * it as DER takes longer than two agreements. A key is never exported as JWK: Node 20 holds a lock of the key during the
 * export, and a garbage collection in that time that removes the job that made the key waits for the lock forever, and
 * the whole process with it.
 */
import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
} from 'node:crypto';

import { ReceiverError } from '../errors.js';

export const keyBytes = 32;

/** Raw X25519 keys of 32 bytes each. Do not change a key after its first use. */
export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

const privateKeys = new WeakMap<KeyPair, KeyObject>();
const publicKeys = new WeakMap<Uint8Array, KeyObject>();
/** The u-coordinate 9 in little-endian (RFC 7748, section 4.1). */
const basePoint = Buffer.alloc(keyBytes);
basePoint.writeUInt8(9);

/** The private half is exported only on access. */
export function generateKeyPair(): KeyPair {
  const { privateKey: key } = generateKeyPairSync('x25519');
  const pair = {
    publicKey: diffieHellman({ privateKey: key, publicKey: publicKeyOf(basePoint) }),
    get privateKey() {
      return key.export({ format: 'der', type: 'pkcs8' }).subarray(-keyBytes);
    },
  };
  privateKeys.set(pair, key);
  return pair;
}

/** The shared secret. Throws NOISE when a key is not 32 bytes long or of low order. */
export function agree(own: KeyPair, remotePublicKey: Uint8Array): Buffer {
  try {
    return diffieHellman({ privateKey: privateKeyOf(own), publicKey: publicKeyOf(remotePublicKey) });
  } catch (cause) {
    throw new ReceiverError('NOISE', 'a handshake key is unusable', {}, { cause });
  }
}

function privateKeyOf(pair: KeyPair): KeyObject {
  const known = privateKeys.get(pair);
  if (known !== undefined) return known;
  const key = createPrivateKey({ key: jwk(pair.publicKey, pair.privateKey), format: 'jwk' });
  privateKeys.set(pair, key);
  return key;
}

function publicKeyOf(raw: Uint8Array): KeyObject {
  const known = publicKeys.get(raw);
  if (known !== undefined) return known;
  const key = createPublicKey({ key: jwk(raw), format: 'jwk' });
  publicKeys.set(raw, key);
  return key;
}

function jwk(publicKey: Uint8Array, privateKey?: Uint8Array): JsonWebKey {
  const key = { kty: 'OKP', crv: 'X25519', x: Buffer.from(publicKey).toString('base64url') };
  return privateKey === undefined ? key : { ...key, d: Buffer.from(privateKey).toString('base64url') };
}
