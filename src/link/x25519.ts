/**
 * X25519 with raw 32-byte keys, which is what travels and what lies on disk. `node:crypto` reads them as JWK, in less
 * time than as DER; a private key is read once, since the receiver's own is in every handshake. A public key of
 * low order, which would make the shared secret a constant, is refused by OpenSSL.
 *
 * A key is never exported as JWK: Node 20 holds a lock of the key meanwhile, and a garbage collection that falls into it
 * and removes the job that made the key waits for that lock for ever, with the whole process.
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

/** Raw X25519 keys of 32 bytes each. A pair that was used must not change. */
export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

const privateKeys = new WeakMap<KeyPair, KeyObject>();

export function generateKeyPair(): KeyPair {
  const { privateKey, publicKey } = generateKeyPairSync('x25519');
  const pair = {
    privateKey: privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-keyBytes),
    publicKey: publicKey.export({ format: 'der', type: 'spki' }).subarray(-keyBytes),
  };
  privateKeys.set(pair, privateKey);
  return pair;
}

/** The shared secret. Throws NOISE when a key is not 32 bytes long or of low order. */
export function agree(own: KeyPair, remotePublicKey: Uint8Array): Buffer {
  try {
    return diffieHellman({
      privateKey: privateKeyOf(own),
      publicKey: createPublicKey({ key: jwk(remotePublicKey), format: 'jwk' }),
    });
  } catch (cause) {
    throw new ReceiverError('NOISE', 'a key of the handshake is unusable', {}, { cause });
  }
}

function privateKeyOf(pair: KeyPair): KeyObject {
  const known = privateKeys.get(pair);
  if (known !== undefined) return known;
  const key = createPrivateKey({ key: jwk(pair.publicKey, pair.privateKey), format: 'jwk' });
  privateKeys.set(pair, key);
  return key;
}

function jwk(publicKey: Uint8Array, privateKey?: Uint8Array): JsonWebKey {
  const key = { kty: 'OKP', crv: 'X25519', x: Buffer.from(publicKey).toString('base64url') };
  return privateKey === undefined ? key : { ...key, d: Buffer.from(privateKey).toString('base64url') };
}
