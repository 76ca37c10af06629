/**
 * A second implementation of the handshake, on the noble libraries and from the specification's text in another
 * style, so that it does not repeat a mistake of the first. For tests only: it is slow and has no extra checks.
 */
import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { x25519 } from '@noble/curves/ed25519.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes } from '@noble/hashes/utils.js';

const none = new Uint8Array();

export interface TwinKeys {
  readonly s: Uint8Array;
  readonly e: Uint8Array;
  readonly prologue: Uint8Array;
}

/** Public keys of low order that an attacker shows instead of its own: every secret made with one is zero. */
export interface Claims {
  readonly s?: Uint8Array;
  readonly e?: Uint8Array;
}

/** One side of the handshake, driven message by message: `write` and `read` in turn, three in all. */
export class Twin {
  hash: Uint8Array = new TextEncoder().encode('Noise_XX_25519_ChaChaPoly_SHA256');
  chain: Uint8Array = this.hash;
  key: Uint8Array | undefined;
  nonce = 0n;
  remoteE: Uint8Array = none;
  remoteS: Uint8Array = none;
  message = 0;
  readonly keys: TwinKeys;
  readonly initiator: boolean;
  readonly claims: Claims;

  constructor(keys: TwinKeys, initiator: boolean, claims: Claims = {}) {
    this.keys = keys;
    this.initiator = initiator;
    this.claims = claims;
    this.mixHash(keys.prologue);
  }

  write(payload: Uint8Array): Uint8Array {
    const parts: Uint8Array[] = [];
    if (this.message < 2) {
      parts.push(this.publicKey('e'));
      this.mixHash(this.publicKey('e'));
    }
    if (this.message === 1) this.mixKey(this.secret('e', this.remoteE));
    if (this.message > 0) {
      parts.push(this.seal(this.publicKey('s')));
      // es for the responder's message, se for the initiator's: in both the writer's static key.
      this.mixKey(this.secret('s', this.remoteE));
    }
    parts.push(this.seal(payload));
    this.message++;
    return concatBytes(...parts);
  }

  read(message: Uint8Array): Uint8Array {
    let at = 0;
    if (this.message < 2) {
      if (message.length < 32) throw new Error('no room for a key');
      this.remoteE = message.slice(0, (at = 32));
      this.mixHash(this.remoteE);
    }
    if (this.message === 1) this.mixKey(this.secret('e', this.remoteE));
    if (this.message > 0) {
      this.remoteS = this.unseal(message.slice(at, at + 48));
      at += 48;
      this.mixKey(this.secret('e', this.remoteS));
    }
    this.message++;
    return this.unseal(message.slice(at));
  }

  /** The keys of both directions, the initiator's first. */
  split(): readonly [Uint8Array, Uint8Array] {
    return this.derive(none);
  }

  private publicKey(own: 'e' | 's'): Uint8Array {
    return this.claims[own] ?? x25519.getPublicKey(this.keys[own]);
  }

  private secret(own: 'e' | 's', remote: Uint8Array): Uint8Array {
    return this.claims[own] ? new Uint8Array(32) : x25519.getSharedSecret(this.keys[own], remote);
  }

  private mixHash(data: Uint8Array): void {
    this.hash = sha256(concatBytes(this.hash, data));
  }

  private mixKey(secret: Uint8Array): void {
    [this.chain, this.key] = this.derive(secret);
    this.nonce = 0n;
  }

  private derive(secret: Uint8Array): readonly [Uint8Array, Uint8Array] {
    const temporary = hmac(sha256, this.chain, secret);
    const first = hmac(sha256, temporary, Uint8Array.of(1));
    return [first, hmac(sha256, temporary, concatBytes(first, Uint8Array.of(2)))];
  }

  private seal(plaintext: Uint8Array): Uint8Array {
    const sealed =
      this.key === undefined ? plaintext : twinCipher(this.key, this.nonce++, this.hash).encrypt(plaintext);
    this.mixHash(sealed);
    return sealed;
  }

  private unseal(sealed: Uint8Array): Uint8Array {
    const plaintext =
      this.key === undefined ? sealed : twinCipher(this.key, this.nonce++, this.hash).decrypt(sealed);
    this.mixHash(sealed);
    return plaintext;
  }
}

/** The cipher of one message. */
export function twinCipher(key: Uint8Array, count: bigint, associated: Uint8Array = none) {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, count, true);
  return chacha20poly1305(key, nonce, associated);
}
