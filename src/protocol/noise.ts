/**
 * The handshake `Noise_XX_25519_ChaChaPoly_SHA256` for both roles, with `node:crypto` only. It proves to each side that
 * the other holds the private half of its static key. The steps are the tokens of the Noise specification (revision 34,
 * section 7.5), so that the two can be read side by side. After a failed check a handshake is dead: implementations that
 * continue lose what they had proved.
 */
import { createHash, createHmac, createCipheriv, createDecipheriv, createSecretKey } from 'node:crypto';

import { ReceiverError } from '../errors.js';
import { agree, generateKeyPair, keyBytes, type KeyPair } from './x25519.js';

export type { KeyPair } from './x25519.js';

const protocolName = 'Noise_XX_25519_ChaChaPoly_SHA256';
export const maxMessageBytes = 65_535;
const empty = Buffer.alloc(0);

type Token = 'e' | 's' | 'ee' | 'es' | 'se';
const pattern: readonly (readonly Token[])[] = [['e'], ['e', 'ee', 's', 'es'], ['s', 'se']];

export interface HandshakeOptions {
  readonly staticKey: KeyPair;
  /** Must be equal on both sides. Default: empty, as in the peer link. */
  readonly prologue?: Uint8Array;
  /** Default: a new key; fixed in test vectors. */
  readonly ephemeralKey?: KeyPair;
}

export interface NoiseSession {
  readonly outgoing: Cipher;
  readonly incoming: Cipher;
  readonly remoteStatic: Buffer;
  readonly handshakeHash: Buffer;
}

export type Handshake = ReturnType<typeof createHandshake>;

export function createInitiator(options: HandshakeOptions): Handshake {
  return createHandshake(options, true);
}

export function createResponder(options: HandshakeOptions): Handshake {
  return createHandshake(options, false);
}

function createHandshake(options: HandshakeOptions, initiator: boolean) {
  const { staticKey, ephemeralKey = generateKeyPair(), prologue = empty } = options;
  const symmetric = createSymmetric(prologue);
  let remoteStatic: Buffer | undefined;
  let remoteEphemeral: Buffer | undefined;
  let step = 0;
  let dead = false;

  /** Runs one step; any error in it ends the handshake. */
  function runStep<T>(ours: boolean, run: (tokens: readonly Token[]) => T): T {
    const tokens = pattern[step];
    const oursIsNext = (step % 2 === 0) === initiator;
    if (dead || tokens === undefined || ours !== oursIsNext) {
      throw new ReceiverError('STATE', 'handshake message out of order');
    }
    dead = true;
    const result = run(tokens);
    dead = false;
    step += 1;
    return result;
  }

  function mixSecret(token: 'ee' | 'es' | 'se'): void {
    // The first letter is the initiator's key, the second the responder's.
    const [mine, theirs] = initiator ? [token[0], token[1]] : [token[1], token[0]];
    const remote = theirs === 'e' ? remoteEphemeral : remoteStatic;
    symmetric.mixKey(agree(mine === 'e' ? ephemeralKey : staticKey, remote ?? empty));
  }

  return {
    /** Our next message. Throws STATE out of order, NOISE for an overlong message or an unusable key. */
    write: (payload: Uint8Array): Buffer =>
      runStep(true, (tokens) => {
        const parts = tokens.map((token) => {
          if (token === 'e') return symmetric.mixHash(ephemeralKey.publicKey);
          if (token === 's') return symmetric.encrypt(staticKey.publicKey);
          mixSecret(token);
          return empty;
        });
        const message = Buffer.concat([...parts, symmetric.encrypt(payload)]);
        checkLength(message);
        return message;
      }),
    /** The payload of the other side's next message. Throws STATE out of order, NOISE for an invalid message. */
    read: (message: Uint8Array): Buffer =>
      runStep(false, (tokens) => {
        checkLength(message);
        let rest = message;
        function next(bytes: number): Uint8Array {
          if (rest.length < bytes) throw new ReceiverError('NOISE', 'the handshake message is too short');
          const part = rest.subarray(0, bytes);
          rest = rest.subarray(bytes);
          return part;
        }
        for (const token of tokens) {
          if (token === 'e') remoteEphemeral = Buffer.from(symmetric.mixHash(next(keyBytes)));
          else if (token === 's')
            remoteStatic = symmetric.decrypt(next(keyBytes + symmetric.overheadBytes()));
          else mixSecret(token);
        }
        return symmetric.decrypt(rest);
      }),
    /** The other side's static key. Throws STATE before it has arrived. */
    remoteStatic(): Buffer {
      if (dead || remoteStatic === undefined) {
        throw new ReceiverError('STATE', "the other side's key is not known yet");
      }
      return remoteStatic;
    },
    /** The ciphers of both directions. Throws STATE before the third message. */
    split(): NoiseSession {
      if (dead || step < pattern.length || remoteStatic === undefined) {
        throw new ReceiverError('STATE', 'the handshake is not complete');
      }
      const [first, second] = symmetric.split();
      const [outgoing, incoming] = initiator ? [first, second] : [second, first];
      return { outgoing, incoming, remoteStatic, handshakeHash: symmetric.hash() };
    },
  };
}

function checkLength(message: Uint8Array): void {
  if (message.length > maxMessageBytes) {
    throw new ReceiverError('NOISE', 'the handshake message is too long', { bytes: message.length });
  }
}

/** The SymmetricState of the specification: a running hash, a chaining key, and a cipher once there is a key. */
function createSymmetric(prologue: Uint8Array) {
  // The name has the length of a hash, so it is the first hash itself.
  let hash: Buffer = Buffer.from(protocolName);
  let chainingKey: Uint8Array = hash;
  let cipher: Cipher | undefined;

  function mixHash<T extends Uint8Array>(data: T): T {
    hash = createHash('sha256').update(hash).update(data).digest();
    return data;
  }

  mixHash(prologue);

  return {
    mixHash,
    hash: () => hash,
    overheadBytes: () => cipher?.overheadBytes ?? 0,
    mixKey(secret: Uint8Array): void {
      const [nextChainingKey, key] = derive(chainingKey, secret);
      chainingKey = nextChainingKey;
      cipher = createCipher(key);
    },
    encrypt: (plaintext: Uint8Array) =>
      mixHash(cipher === undefined ? Buffer.from(plaintext) : cipher.encrypt(plaintext, hash)),
    decrypt(ciphertext: Uint8Array): Buffer {
      const plaintext = cipher === undefined ? Buffer.from(ciphertext) : cipher.decrypt(ciphertext, hash);
      mixHash(ciphertext);
      return plaintext;
    },
    split(): readonly [Cipher, Cipher] {
      const [first, second] = derive(chainingKey, empty);
      return [createCipher(first), createCipher(second)];
    },
  };
}

/** The HKDF of the specification (section 4.3) with two outputs, in half the time of Node's `hkdfSync`. */
function derive(chainingKey: Uint8Array, secret: Uint8Array): readonly [Uint8Array, Uint8Array] {
  const key = hmac(chainingKey, secret);
  const first = hmac(key, Buffer.from([1]));
  return [first, hmac(key, first, Buffer.from([2]))];
}

function hmac(key: Uint8Array, ...data: readonly Uint8Array[]): Buffer {
  const mac = createHmac('sha256', key);
  for (const part of data) mac.update(part);
  return mac.digest();
}

const algorithm = 'chacha20-poly1305';
const tagBytes = 16;
const nonceBytes = 12;
const twoTo32 = 2 ** 32;

export type Cipher = ReturnType<typeof createCipher>;

/**
 * One direction of a Noise connection: ChaCha20-Poly1305 with one key and a counter as nonce. The counter advances only on
 * success: a repeated value would expose the key, and an advance after a forged message would make every later valid
 * message unreadable. `firstNonce` is only for tests of the counter.
 */
export function createCipher(key: Uint8Array, firstNonce = 0) {
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
    /** The length of the ciphertext minus that of the plaintext. */
    overheadBytes: tagBytes,
    /** The number of messages so far, which is the next nonce. */
    get count(): number {
      return count;
    },
    encrypt(plaintext: Uint8Array, associated: Uint8Array = empty): Buffer {
      const cipher = createCipheriv(algorithm, secret, nextNonce(), authTagLength);
      if (associated.length > 0) cipher.setAAD(associated, { plaintextLength: plaintext.length });
      const body = cipher.update(plaintext);
      cipher.final();
      const message = Buffer.concat([body, cipher.getAuthTag()]);
      count += 1;
      return message;
    },
    /** Throws NOISE for a message that is too short, forged, out of order or encrypted with another key. */
    decrypt(ciphertext: Uint8Array, associated: Uint8Array = empty): Buffer {
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
