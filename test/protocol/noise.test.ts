import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { x25519 } from '@noble/curves/ed25519.js';

import { isReceiverError } from '../../src/errors.js';
import { pinOf } from '../../src/protocol/fingerprint.js';
import { createCipher, createInitiator, createResponder, type Handshake } from '../../src/protocol/noise.js';
import { generateKeyPair, type KeyPair } from '../../src/protocol/x25519.js';
import { twinCipher } from './noise-twin.js';

const hex = (text: string): Buffer => Buffer.from(text, 'hex');
const noiseError = (error: unknown): boolean => isReceiverError(error, 'NOISE');
const stateError = (error: unknown): boolean => isReceiverError(error, 'STATE');

function pairOf(privateKey: Uint8Array): KeyPair {
  return { privateKey, publicKey: x25519.getPublicKey(privateKey) };
}

interface Vector {
  readonly init_prologue: string;
  readonly init_static: string;
  readonly init_ephemeral: string;
  readonly resp_static: string;
  readonly resp_ephemeral: string;
  readonly handshake_hash?: string;
  readonly messages: readonly { readonly payload: string; readonly ciphertext: string }[];
  readonly source: string;
}

const vectorsFile = new URL('../fixtures/vectors/noise-xx-25519-chachapoly-sha256.json', import.meta.url);
const { vectors } = JSON.parse(readFileSync(vectorsFile, 'utf8')) as { vectors: Vector[] };

for (const vector of vectors) {
  test(`Both roles write and read the published vector of ${vector.source} byte for byte`, () => {
    const prologue = hex(vector.init_prologue);
    const initiator = createInitiator({
      prologue,
      staticKey: pairOf(hex(vector.init_static)),
      ephemeralKey: pairOf(hex(vector.init_ephemeral)),
    });
    const responder = createResponder({
      prologue,
      staticKey: pairOf(hex(vector.resp_static)),
      ephemeralKey: pairOf(hex(vector.resp_ephemeral)),
    });
    const handshake = vector.messages.slice(0, 3);
    for (const [index, { payload, ciphertext }] of handshake.entries()) {
      const [writer, reader] = index % 2 === 0 ? [initiator, responder] : [responder, initiator];
      assert.equal(writer.write(hex(payload)).toString('hex'), ciphertext);
      assert.equal(reader.read(hex(ciphertext)).toString('hex'), payload);
    }
    const [left, right] = [initiator.split(), responder.split()];
    assert.deepEqual(left.handshakeHash, right.handshakeHash);
    if (vector.handshake_hash !== undefined) {
      assert.equal(left.handshakeHash.toString('hex'), vector.handshake_hash);
    }
    // The published messages continue to alternate, now from the responder.
    for (const [index, { payload, ciphertext }] of vector.messages.slice(3).entries()) {
      const [from, to] = index % 2 === 0 ? [right, left] : [left, right];
      assert.equal(from.outgoing.encrypt(hex(payload)).toString('hex'), ciphertext);
      assert.equal(to.incoming.decrypt(hex(ciphertext)).toString('hex'), payload);
    }
  });
}

test('A pairing request with fixed keys has the bytes, pins, hash and keys that Device Builder 1.26 computes', () => {
  const ramp = (from: number): KeyPair => pairOf(Uint8Array.from({ length: 32 }, (_, index) => from + index));
  const [initiatorKey, responderKey] = [ramp(0x00), ramp(0x20)];
  const initiator = createInitiator({ staticKey: initiatorKey, ephemeralKey: ramp(0x40) });
  const responder = createResponder({ staticKey: responderKey, ephemeralKey: ramp(0x60) });

  assert.equal(
    pinOf(initiatorKey.publicKey),
    'eedd883da0a9451593dc0a38e583fb770fa27dbbed209c20404e075e68c4f0c9',
  );
  assert.equal(
    pinOf(responderKey.publicKey),
    'a0289810032eb417274eebc4a38e6899b935321d53554e32ec6322f0fa1e724e',
  );

  const intent = '{"intent":"pair_request"}';
  const hello =
    '{"label":"Kitchen builder","dashboard_id":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","friendly_name":"kb","ha_addon":false,"label_auto":false}';
  const m1 = initiator.write(Buffer.from(intent));
  assert.equal(
    m1.toString('hex'),
    '79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a7b22696e74656e74223a22706169725f72657175657374227d',
  );
  assert.equal(responder.read(m1).toString(), intent);
  const m2 = responder.write(Buffer.alloc(0));
  assert.equal(
    m2.toString('hex'),
    '675dd574ed7789310b3d2e7681f3790b466c773b1521fecf36577958371ea52ff8fbbd167814c44b0bb328d5e48aaa31dfd99f21b507a9124257638ff45516cc94d12e27f9800a3b7e14436d6087bc036658e98c8197f6a5e89dc24fb8f0bbe3',
  );
  assert.equal(initiator.read(m2).length, 0);
  const m3 = initiator.write(Buffer.from(hello));
  assert.equal(
    m3.toString('hex'),
    '0e9eb889e33411638c7b00a161b3ad9460a27b9c7abb509b53cb745363f938a44f12e0fdcc0ea76ffb74f8591bc7a4c585741373b277abbcb9611a6bbca6dd11b7a33f580ccba78dbabaa20c35192be2a847251d045ade99b1de26411f352086bc17c45ad13accd1ebfc4fdf6f114e48fd5910c2b0a25ef8f7c1083086a5079deb2127d8f2e191f3a26e227b543c890819418782ee66faaf750d319a3ee207f1e6d01ceb6b947634a88bb32e0d5d8c523aa3ef0327d2d95b5cc7dda0277f986aeb9a1cb4a84b',
  );
  assert.equal(responder.read(m3).toString(), hello);

  const [left, right] = [initiator.split(), responder.split()];
  assert.equal(pinOf(right.remoteStatic), pinOf(initiatorKey.publicKey));
  assert.equal(pinOf(left.remoteStatic), pinOf(responderKey.publicKey));
  const hash = '35fe6595f82a09047e520528371c865a0291b75ec3d79628ae4d73c88417b044';
  assert.equal(left.handshakeHash.toString('hex'), hash);
  assert.equal(right.handshakeHash.toString('hex'), hash);

  const response = Buffer.from('{"intent_response":"pending"}');
  const sealed = right.outgoing.encrypt(response);
  assert.equal(
    sealed.toString('hex'),
    'e78038f16bfc20b7c4e0a26ed693fca42167a4717549abbc5dee2e92341f3d2a4ae0de62794c19dd5ce598966d',
  );
  assert.deepEqual(left.incoming.decrypt(sealed), response);
  const toReceiver = hex('5ee5c66ae8a9caae4e4fcac0e24f13ae26823b0a317eedd9a5bc1b29f4bd5bcc');
  assert.deepEqual(
    left.outgoing.encrypt(response),
    Buffer.from(twinCipher(toReceiver, 0n).encrypt(response)),
  );
});

/** Two sides that have exchanged `messages` messages with empty payloads. */
function partners(messages: number): { initiator: Handshake; responder: Handshake } {
  const initiator = createInitiator({ staticKey: generateKeyPair() });
  const responder = createResponder({ staticKey: generateKeyPair() });
  for (let index = 0; index < messages; index++) {
    const [writer, reader] = index % 2 === 0 ? [initiator, responder] : [responder, initiator];
    reader.read(writer.write(Buffer.alloc(0)));
  }
  return { initiator, responder };
}

test('A changed, missing or extra byte anywhere in a handshake message is a Noise error', () => {
  const { initiator, responder } = partners(1);
  const m2 = responder.write(Buffer.alloc(0));
  for (let at = 0; at < m2.length; at += 5) {
    const fresh = createInitiator({ staticKey: generateKeyPair() });
    fresh.write(Buffer.alloc(0));
    const forged = Buffer.from(m2);
    forged[at] = (forged[at] ?? 0) ^ 0x40;
    assert.throws(() => fresh.read(forged), noiseError);
  }
  const cut = createInitiator({ staticKey: generateKeyPair() });
  cut.write(Buffer.alloc(0));
  assert.throws(() => cut.read(m2.subarray(0, 79)), noiseError);
  assert.throws(() => createResponder({ staticKey: generateKeyPair() }).read(Buffer.alloc(31)), noiseError);
  assert.throws(
    () => createResponder({ staticKey: generateKeyPair() }).read(Buffer.alloc(65_536)),
    noiseError,
  );

  initiator.read(m2);
  const m3 = initiator.write(Buffer.from('hello'));
  m3[m3.length - 1] = (m3.at(-1) ?? 0) ^ 1;
  assert.throws(() => responder.read(m3), noiseError);
  assert.throws(() => responder.split(), stateError, 'a failed handshake gives no keys');
  assert.throws(() => responder.remoteStatic(), stateError, 'an unproved key is not shown');
});

test('A handshake out of order is refused: writing twice, reading first, splitting early, a fourth message', () => {
  const { initiator, responder } = partners(0);
  assert.throws(() => initiator.read(Buffer.alloc(96)), stateError);
  assert.throws(() => responder.write(Buffer.alloc(0)), stateError);
  initiator.write(Buffer.alloc(0));
  assert.throws(() => initiator.write(Buffer.alloc(0)), stateError);
  assert.throws(() => initiator.split(), stateError);
  assert.throws(() => initiator.remoteStatic(), stateError);
  const complete = partners(3);
  assert.throws(() => complete.initiator.read(Buffer.alloc(96)), stateError);
  assert.throws(() => complete.responder.write(Buffer.alloc(0)), stateError);
  assert.throws(() => partners(0).initiator.write(Buffer.alloc(65_535)), noiseError);
});

test('A forged message does not advance the counter: the real one is still readable, a replayed one is not', () => {
  const { initiator, responder } = partners(3);
  const [left, right] = [initiator.split(), responder.split()];
  const first = left.outgoing.encrypt(Buffer.from('one'));
  const second = left.outgoing.encrypt(Buffer.from('two'));
  assert.throws(() => right.incoming.decrypt(second), noiseError, 'out of order');
  assert.throws(() => right.incoming.decrypt(Buffer.alloc(15)), noiseError, 'shorter than a tag');
  const forged = Buffer.from(first);
  forged[0] = (forged[0] ?? 0) ^ 1;
  assert.throws(() => right.incoming.decrypt(forged), noiseError);
  assert.equal(right.incoming.count, 0);
  assert.equal(right.incoming.decrypt(first).toString(), 'one');
  assert.throws(() => right.incoming.decrypt(first), noiseError, 'replayed');
  assert.equal(right.incoming.decrypt(second).toString(), 'two');
  assert.equal(right.outgoing.count, 0, 'the other direction counts for itself');
});

test('The counter is 64 bits little-endian, and ends with an error instead of wrapping', () => {
  const key = createHash('sha256').update('key').digest();
  for (const count of [0, 1, 0xffff_ffff, 2 ** 32, 2 ** 40 + 5, Number.MAX_SAFE_INTEGER]) {
    assert.deepEqual(
      createCipher(key, count).encrypt(Buffer.from('x')),
      Buffer.from(twinCipher(key, BigInt(count)).encrypt(Buffer.from('x'))),
    );
  }
  const last = createCipher(key, Number.MAX_SAFE_INTEGER);
  last.encrypt(Buffer.from('x'));
  assert.throws(() => last.encrypt(Buffer.from('x')), noiseError);
});
