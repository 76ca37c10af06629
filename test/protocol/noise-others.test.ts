/** Compares our handshake with other implementations; `npm run fuzz -- noise` runs thousands of conversations. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isReceiverError } from '../../src/errors.js';
import { generateKeyPair } from '../../src/protocol/x25519.js';
import { loadNoiseC } from './noise-c.js';
import { allAgree, assertDead } from './noise-properties.js';
import { openOurs, openTwin, type Keys, type OpenSide, type Side } from './noise-sides.js';
import { Twin } from './noise-twin.js';

const maxMessage = 65_535;
const none = new Uint8Array();
const noiseC = await loadNoiseC();

function freshKeys(): Keys {
  return { s: generateKeyPair().privateKey, e: generateKeyPair().privateKey, prologue: none };
}

test('For any messages, changed, cut, repeated or reordered, three implementations agree', async (t) => {
  const counts = await allAgree(60);
  t.diagnostic(JSON.stringify(counts));
  for (const [what, count] of Object.entries(counts)) assert.ok(count > 5, what);
});

for (const [role, oursInitiates] of [
  ['initiator', true],
  ['responder', false],
] as const) {
  test(`Ours as ${role} and noise-c as the other exchange messages both ways, from empty to the longest`, () => {
    const [ours, theirs] = [openOurs(freshKeys(), oursInitiates), noiseC.open(freshKeys(), !oursInitiates)];
    const [initiator, responder] = oursInitiates ? [ours, theirs] : [theirs, ours];
    // The overhead of each handshake message.
    for (const [index, overhead] of [32, 96, 64].entries()) {
      const [writer, reader] = index % 2 === 0 ? [initiator, responder] : [responder, initiator];
      const payload = Buffer.alloc(maxMessage - overhead, index);
      const message = writer.write(payload);
      assert.equal(message.length, maxMessage);
      assert.deepEqual(Buffer.from(reader.read(message)), payload);
    }
    const [left, right] = [initiator.end(), responder.end()];
    assert.deepEqual(Buffer.from(left.handshakeHash), Buffer.from(right.handshakeHash));
    for (const length of [0, 1, 61_423, maxMessage - 16, 0]) {
      for (const [from, to] of [
        [left, right],
        [right, left],
      ] as const) {
        const plaintext = Buffer.alloc(length, length);
        const ciphertext = from.encrypt(plaintext);
        assert.equal(ciphertext.length, length + 16);
        assert.deepEqual(Buffer.from(to.decrypt(ciphertext)), plaintext);
      }
    }
  });
}

test('Neither writes a handshake message that is one byte too long, and ours does not read it', () => {
  const tooMuch = Buffer.alloc(maxMessage - 31);
  assert.throws(() => noiseC.open(freshKeys(), true).write(tooMuch));
  const [writer, reader] = [openOurs(freshKeys(), true), openOurs(freshKeys(), false)];
  for (const [side, step] of [
    [writer, () => writer.write(tooMuch)],
    [reader, () => reader.read(Buffer.alloc(maxMessage + 1, 9))],
  ] as const) {
    assert.throws(step, (error) => isReceiverError(error, 'NOISE') && error.message.includes('too long'));
    assertDead(side);
  }
});

/** All points that a multiplication turns into zero, little-endian; the last three are 2^255 - 20 to 2^255 - 18. */
const lowOrder = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  'e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800',
  '5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
  'eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
].flatMap((text) => {
  const point = Buffer.from(text, 'hex');
  // The top bit is ignored (RFC 7748, section 5), so each point can also be written with it.
  const alias = Buffer.from(point);
  alias[31] = (alias[31] ?? 0) | 0x80;
  return [point, alias];
});

/** Advances a victim to the step that reads the attacker's point, and returns that step. */
type Trap = (open: OpenSide, point: Uint8Array) => { victim: Side; step: () => unknown };

const traps: Record<string, Trap> = {
  'as the ephemeral key of the initiator'(open, e) {
    const [cheat, victim] = [new Twin(freshKeys(), true, { e }), open(freshKeys(), false)];
    victim.read(cheat.write(none));
    return { victim, step: () => cheat.read(victim.write(none)) };
  },
  'as the ephemeral key of the responder'(open, e) {
    const [cheat, victim] = [new Twin(freshKeys(), false, { e }), open(freshKeys(), true)];
    cheat.read(victim.write(none));
    return { victim, step: () => victim.read(cheat.write(none)) };
  },
  'as the static key of the responder'(open, s) {
    const [cheat, victim] = [new Twin(freshKeys(), false, { s }), open(freshKeys(), true)];
    cheat.read(victim.write(none));
    return { victim, step: () => victim.read(cheat.write(none)) };
  },
  'as the static key of the initiator'(open, s) {
    const [cheat, victim] = [new Twin(freshKeys(), true, { s }), open(freshKeys(), false)];
    victim.read(cheat.write(none));
    cheat.read(victim.write(none));
    return { victim, step: () => victim.read(cheat.write(none)) };
  },
};

for (const [where, trap] of Object.entries(traps)) {
  test(`Every point of low order ${where} is refused, in an otherwise valid message`, () => {
    for (const point of lowOrder) {
      const { victim, step } = trap(openOurs, point);
      assert.throws(
        step,
        (error) => isReceiverError(error, 'NOISE') && error.message.includes('handshake key'),
      );
      assertDead(victim);
      assert.throws(trap(openTwin, point).step, 'noble refuses it too');
      // noise-c refuses only zeros, as the specification allows, so only the point is wrong.
      if (point.some((byte) => byte !== 0)) trap(noiseC.open, point).step();
    }
  });
}

test('Numbers that have low order only with the top bit are ordinary keys', () => {
  // 2p - 1, 2p, 2p + 1 for the prime p = 2^255 - 19.
  for (const text of ['d9', 'da', 'db']) {
    const e = Buffer.from(text + 'ff'.repeat(31), 'hex');
    for (const open of [openOurs, openTwin, noiseC.open]) {
      const responder = open(freshKeys(), false);
      responder.read(e);
      assert.equal(responder.write(none).length, 96);
    }
  }
});
