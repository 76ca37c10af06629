/**
 * The handshake `Noise_XX_25519_ChaChaPoly_SHA256`, both roles, on `node:crypto` alone.
 *
 * After it, each side knows that the other holds the private half of the static key that it showed. The steps
 * are the tokens of the Noise specification (revision 34, section 7.5), so that code and specification can be
 * read side by side. A handshake that has failed once is dead: going on after a failed check is how
 * implementations lose what they had proved.
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
  /** Must be equal on both sides. Default empty, as the peer link has it. */
  readonly prologue?: Uint8Array;
  /** Fixed for test vectors; fresh otherwise. */
  readonly ephemeralKey?: KeyPair;
}

export interface Handshake {
  /** The next message of ours. Throws STATE out of turn, NOISE when it would be too long or a key is unusable. */
  write(payload: Uint8Array): Buffer;
  /** The payload of the other side's next message. Throws STATE out of turn and NOISE for a message that is not one. */
  read(message: Uint8Array): Buffer;
  /** The other side's static key. Throws STATE before the message that holds it. */
  remoteStatic(): Buffer;
  /** The two directions, after the third message. Throws STATE before. */
  split(): NoiseSession;
}

export interface NoiseSession {
  readonly outgoing: Cipher;
  readonly incoming: Cipher;
  readonly remoteStatic: Buffer;
  readonly handshakeHash: Buffer;
}

export function createInitiator(options: HandshakeOptions): Handshake {
  return createHandshake(options, true);
}

export function createResponder(options: HandshakeOptions): Handshake {
  return createHandshake(options, false);
}

function createHandshake(options: HandshakeOptions, initiator: boolean): Handshake {
  const { staticKey, ephemeralKey = generateKeyPair(), prologue = empty } = options;
  const symmetric = createSymmetric(prologue);
  let remoteStatic: Buffer | undefined;
  let remoteEphemeral: Buffer | undefined;
  let step = 0;
  let dead = false;

  /** Runs one step; whatever goes wrong in it ends the handshake. */
  function take<T>(ours: boolean, run: (tokens: readonly Token[]) => T): T {
    const tokens = pattern[step];
    const oursIsNext = (step % 2 === 0) === initiator;
    if (dead || tokens === undefined || ours !== oursIsNext) {
      throw new ReceiverError('STATE', 'the handshake does not expect this message now');
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
    write: (payload) =>
      take(true, (tokens) => {
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
    read: (message) =>
      take(false, (tokens) => {
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
    remoteStatic() {
      if (dead || remoteStatic === undefined) {
        throw new ReceiverError('STATE', "the other side's key is not known yet");
      }
      return remoteStatic;
    },
    split() {
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
  // The name is exactly one hash long, so it is the first hash as it stands.
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

/**
 * One direction of a Noise connection: ChaCha20-Poly1305 under one key with a counter as nonce.
 *
 * The counter moves on success only and never backwards. A counter used twice would give the key away; one that
 * moved after a forged message would make every later true message unreadable.
 */
const algorithm = 'chacha20-poly1305';
const tagBytes = 16;
const nonceBytes = 12;
const twoTo32 = 2 ** 32;
const noData = Buffer.alloc(0);

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
    encrypt(plaintext, associated = noData) {
      const cipher = createCipheriv(algorithm, secret, nextNonce(), authTagLength);
      if (associated.length > 0) cipher.setAAD(associated, { plaintextLength: plaintext.length });
      const body = cipher.update(plaintext);
      cipher.final();
      const message = Buffer.concat([body, cipher.getAuthTag()]);
      count += 1;
      return message;
    },
    decrypt(ciphertext, associated = noData) {
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
