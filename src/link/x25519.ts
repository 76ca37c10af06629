/**
 * X25519 with raw 32-byte keys, which is what travels and what lies on disk; `node:crypto` wants them as JWK.
 * A public key of low order, which would make the shared secret a constant, is refused by OpenSSL.
 */
import {
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type JsonWebKey,
} from 'node:crypto';

import { ReceiverError } from '../errors.js';

export const keyBytes = 32;

/** Raw X25519 keys of 32 bytes each. */
export interface KeyPair {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
}

export function generateKeyPair(): KeyPair {
  const { d, x } = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' });
  return { privateKey: Buffer.from(d ?? '', 'base64url'), publicKey: Buffer.from(x ?? '', 'base64url') };
}

/** The shared secret. Throws NOISE when a key is not 32 bytes long or of low order. */
export function agree(own: KeyPair, remotePublicKey: Uint8Array): Buffer {
  try {
    return diffieHellman({
      privateKey: createPrivateKey({ key: jwk(own.publicKey, own.privateKey), format: 'jwk' }),
      publicKey: createPublicKey({ key: jwk(remotePublicKey), format: 'jwk' }),
    });
  } catch (cause) {
    throw new ReceiverError('NOISE', 'a key of the handshake is unusable', {}, { cause });
  }
}

function jwk(publicKey: Uint8Array, privateKey?: Uint8Array): JsonWebKey {
  const key = { kty: 'OKP', crv: 'X25519', x: Buffer.from(publicKey).toString('base64url') };
  return privateKey === undefined ? key : { ...key, d: Buffer.from(privateKey).toString('base64url') };
}
