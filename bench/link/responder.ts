/**
 * The bare loop of a handshake: what `Noise_XX_25519_ChaChaPoly_SHA256` costs the one who answers, with `node:crypto` and
 * not one check. A new key, three agreements, eight hashes, four derivations, three encryptions with the answer to the
 * intent, and two decryptions.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';

export interface BareKey {
  readonly privateKey: KeyObject;
  readonly publicKey: Buffer;
}

/** Answers the first message with the second, then the third with an encrypted text. */
export interface BareResponder {
  first(message: Buffer): Buffer;
  third(message: Buffer, answer: string): Buffer;
}

const algorithm = 'chacha20-poly1305';
const tag = { authTagLength: 16 };
const [keyBytes, empty, noNonce] = [32, Buffer.alloc(0), Buffer.alloc(12)];
const [one, two] = [Buffer.from([1]), Buffer.from([2])];
const basePoint = publicKeyOf(Buffer.from([9, ...Buffer.alloc(keyBytes - 1)]));
const pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

export function keyOf(privateKey: Buffer): BareKey {
  const key = createPrivateKey({
    key: Buffer.concat([pkcs8Prefix, privateKey]),
    format: 'der',
    type: 'pkcs8',
  });
  return { privateKey: key, publicKey: rawOf(createPublicKey(key)) };
}

/** `replayed` takes the place of the new key, which is made all the same: then recorded messages can be read again. */
export function createBareResponder(own: BareKey, replayed?: BareKey): BareResponder {
  const { privateKey } = generateKeyPairSync('x25519');
  const fresh = { privateKey, publicKey: diffieHellman({ privateKey, publicKey: basePoint }) };
  const ephemeral = replayed ?? fresh;
  let hash: Buffer = Buffer.from('Noise_XX_25519_ChaChaPoly_SHA256');
  let chainingKey: Uint8Array = hash;
  let key: Uint8Array = empty;
  let nonce = 0;
  let theirEphemeral: KeyObject;

  function mixHash(data: Uint8Array): void {
    hash = createHash('sha256').update(hash).update(data).digest();
  }
  function mixKey(secret: Uint8Array): void {
    [chainingKey, key] = derive(chainingKey, secret);
    nonce = 0;
  }
  function encrypt(plaintext: Uint8Array): Buffer {
    const cipher = createCipheriv(algorithm, key, nextNonce(), tag);
    cipher.setAAD(hash, { plaintextLength: plaintext.length });
    const body = cipher.update(plaintext);
    cipher.final();
    const sealed = Buffer.concat([body, cipher.getAuthTag()]);
    mixHash(sealed);
    return sealed;
  }
  function decrypt(sealed: Buffer): Buffer {
    const decipher = createDecipheriv(algorithm, key, nextNonce(), tag);
    decipher.setAAD(hash, { plaintextLength: sealed.length - tag.authTagLength });
    decipher.setAuthTag(sealed.subarray(-tag.authTagLength));
    const plaintext = decipher.update(sealed.subarray(0, -tag.authTagLength));
    decipher.final();
    mixHash(sealed);
    return plaintext;
  }
  function nextNonce(): Buffer {
    const bytes = Buffer.from(noNonce);
    bytes.writeUInt32LE(nonce, 4);
    nonce += 1;
    return bytes;
  }

  mixHash(empty);
  return {
    first(message) {
      const raw = message.subarray(0, keyBytes);
      mixHash(raw);
      theirEphemeral = publicKeyOf(raw);
      mixHash(message.subarray(keyBytes));
      mixHash(ephemeral.publicKey);
      mixKey(diffieHellman({ privateKey: ephemeral.privateKey, publicKey: theirEphemeral }));
      const sealedKey = encrypt(own.publicKey);
      mixKey(diffieHellman({ privateKey: own.privateKey, publicKey: theirEphemeral }));
      return Buffer.concat([ephemeral.publicKey, sealedKey, encrypt(empty)]);
    },
    third(message, answer) {
      const sealedKeyBytes = keyBytes + tag.authTagLength;
      const theirs = publicKeyOf(decrypt(message.subarray(0, sealedKeyBytes)));
      mixKey(diffieHellman({ privateKey: ephemeral.privateKey, publicKey: theirs }));
      decrypt(message.subarray(sealedKeyBytes));
      const [, outgoing] = derive(chainingKey, empty);
      [key, nonce, hash] = [outgoing, 0, empty];
      return encrypt(Buffer.from(answer));
    },
  };
}

function derive(chainingKey: Uint8Array, secret: Uint8Array): readonly [Buffer, Buffer] {
  const key = createHmac('sha256', chainingKey).update(secret).digest();
  const first = createHmac('sha256', key).update(one).digest();
  return [first, createHmac('sha256', key).update(first).update(two).digest()];
}

function publicKeyOf(raw: Buffer): KeyObject {
  return createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x: raw.toString('base64url') }, format: 'jwk' });
}

function rawOf(key: KeyObject): Buffer {
  return key.export({ format: 'der', type: 'spki' }).subarray(-keyBytes);
}
