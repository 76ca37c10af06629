/**
 * One interface for every handshake implementation in the tests, so that all can run through the same
 * conversation in step. A side that has thrown is not called again, except ours, which must stay dead.
 */
import { x25519 } from '@noble/curves/ed25519.js';

import { createInitiator, createResponder } from '../../src/protocol/noise.js';
import { Twin, twinCipher } from './noise-twin.js';

export interface Keys {
  /** Private keys of 32 bytes: the static and the ephemeral one. */
  readonly s: Uint8Array;
  readonly e: Uint8Array;
  readonly prologue: Uint8Array;
}

export interface Side {
  /** The next message. Throws when a key is refused. */
  write(payload: Uint8Array): Uint8Array;
  /** The payload. Throws for a message that is refused. */
  read(message: Uint8Array): Uint8Array;
  /** After the third message. */
  end(): Ended;
}

export interface Ended {
  readonly handshakeHash: Uint8Array;
  readonly remoteStatic: Uint8Array;
  encrypt(plaintext: Uint8Array): Uint8Array;
  /** Throws for a message that is refused. */
  decrypt(ciphertext: Uint8Array): Uint8Array;
}

export type OpenSide = (keys: Keys, initiator: boolean) => Side;

export const openOurs: OpenSide = ({ s, e, prologue }, initiator) => {
  const pairOf = (privateKey: Uint8Array) => ({ privateKey, publicKey: x25519.getPublicKey(privateKey) });
  const options = { staticKey: pairOf(s), ephemeralKey: pairOf(e), prologue };
  const handshake = initiator ? createInitiator(options) : createResponder(options);
  return {
    write: handshake.write,
    read: handshake.read,
    end() {
      const { outgoing, incoming, remoteStatic, handshakeHash } = handshake.split();
      return { handshakeHash, remoteStatic, encrypt: outgoing.encrypt, decrypt: incoming.decrypt };
    },
  };
};

/** On noble; see noise-twin.ts. */
export const openTwin: OpenSide = (keys, initiator) => {
  const twin = new Twin(keys, initiator);
  return {
    write: (payload) => twin.write(payload),
    read: (message) => twin.read(message),
    end() {
      const [first, second] = twin.split();
      const [toOther, fromOther] = initiator ? [first, second] : [second, first];
      let [sent, received] = [0n, 0n];
      return {
        handshakeHash: twin.hash,
        remoteStatic: twin.remoteS,
        encrypt: (plaintext) => twinCipher(toOther, sent++).encrypt(plaintext),
        decrypt(ciphertext) {
          const plaintext = twinCipher(fromOther, received).decrypt(ciphertext);
          received += 1n;
          return plaintext;
        },
      };
    },
  };
};
