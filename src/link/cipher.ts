/**
 * One direction of a Noise connection: ChaCha20-Poly1305 under one key with a counter as nonce.
 *
 * The counter moves on success only and never backwards. A counter used twice would give the key away; one that
 * moved after a forged message would make every later true message unreadable.
 */
import { createCipheriv, createDecipheriv, createSecretKey } from 'node:crypto';

import { ReceiverError } from '../errors.js';

const algorithm = 'chacha20-poly1305';
const tagBytes = 16;
const nonceBytes = 12;
const twoTo32 = 2 ** 32;
const empty = Buffer.alloc(0);

export interface Cipher {
  /** How much longer the ciphertext is than the plaintext. */
  readonly overheadBytes: number;
  /** The messages so far, which is the nonce of the next one. */
  readonly count: number;
  encrypt(plaintext: Uint8Array, associated?: Uint8Array): Buffer;
  /** Throws NOISE when the message is too short, forged, out of order or under another key. */
  decrypt(ciphertext: Uint8Array, associated?: Uint8Array): Buffer;
}

/** `firstNonce` is for tests of the counter alone. */
export function createCipher(key: Uint8Array, firstNonce = 0): Cipher {
  const secret = createSecretKey(key);
  const nonce = Buffer.alloc(nonceBytes);
  const authTagLength = { authTagLength: tagBytes };
  let count = firstNonce;

  function nextNonce(): Buffer {
    if (!Number.isSafeInteger(count)) throw new ReceiverError('NOISE', 'the message counter is exhausted');
    nonce.writeUInt32LE(count % twoTo32, 4);
    nonce.writeUInt32LE(Math.floor(count / twoTo32), 8);
    return nonce;
  }

  return {
    overheadBytes: tagBytes,
    get count() {
      return count;
    },
    encrypt(plaintext, associated = empty) {
      const cipher = createCipheriv(algorithm, secret, nextNonce(), authTagLength);
      if (associated.length > 0) cipher.setAAD(associated, { plaintextLength: plaintext.length });
      const body = cipher.update(plaintext);
      cipher.final();
      const message = Buffer.concat([body, cipher.getAuthTag()]);
      count += 1;
      return message;
    },
    decrypt(ciphertext, associated = empty) {
      const length = ciphertext.length - tagBytes;
      if (length < 0) throw new ReceiverError('NOISE', 'the message is shorter than its tag');
      const decipher = createDecipheriv(algorithm, secret, nextNonce(), authTagLength);
      if (associated.length > 0) decipher.setAAD(associated, { plaintextLength: length });
      decipher.setAuthTag(ciphertext.subarray(length));
      const plaintext = decipher.update(ciphertext.subarray(0, length));
      try {
        decipher.final();
      } catch (cause) {
        throw new ReceiverError('NOISE', 'the message cannot be decrypted', { count }, { cause });
      }
      count += 1;
      return plaintext;
    },
  };
}
