/**
 * Three implementations in one conversation, in both roles and in step: all write or refuse the same messages. A
 * function with a number of runs: `npm test` uses some dozens, `npm run fuzz -- noise` thousands.
 */
import assert from 'node:assert/strict';

import { x25519 } from '@noble/curves/ed25519.js';
import * as fc from 'fast-check';

import { isReceiverError } from '../../src/errors.js';
import { loadNoiseC } from './noise-c.js';
import { openOurs, openTwin, type Ended, type OpenSide, type Side } from './noise-sides.js';

/** The number of runs after which noise-c is reloaded. */
const batchRuns = 250;
const names = ['ours', 'on noble', 'noise-c'];
const empty = new Uint8Array();

const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const long = fc.integer({ min: 1_000, max: 50_000 }).map((length) => new Uint8Array(length).fill(length));
const payload = fc.oneof(
  { arbitrary: fc.uint8Array({ maxLength: 200 }), weight: 9 },
  { arbitrary: long, weight: 1 },
);
/** A position in a message or a list, as a fraction of its length. */
const at = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const change = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant('cut' as const), at }),
  fc.record({ kind: fc.constant('extend' as const), by: fc.uint8Array({ minLength: 1, maxLength: 40 }) }),
  // An earlier message of either direction: replayed, reflected, or out of order.
  fc.record({ kind: fc.constant('another' as const), at }),
);
const maybeChanged = fc.option(change, { nil: undefined, freq: 2 });
/** 0 is the initiator. */
const role = fc.constantFrom(0 as const, 1 as const);
const conversation = fc.record({
  keys: fc.record({ is: bytes32, ie: bytes32, rs: bytes32, re: bytes32 }),
  prologue: fc.uint8Array({ maxLength: 40 }),
  payloads: fc.tuple(payload, payload, payload),
  fault: fc.option(fc.record({ message: fc.nat(2), change }), { nil: undefined, freq: 2 }),
  steps: fc.array(
    fc.oneof(
      fc.record({ do: fc.constant('send' as const), from: role, payload }),
      fc.record({ do: fc.constant('deliver' as const), to: role, change: maybeChanged }),
    ),
    { minLength: 1, maxLength: 25, size: 'max' },
  ),
});

type ValueOf<A> = A extends fc.Arbitrary<infer T> ? T : never;
type Change = ValueOf<typeof change>;
type Conversation = ValueOf<typeof conversation>;
/** How often each case happened, so that a test can check that none is missing. */
export type Counts = Record<'completed' | 'refusedHandshakes' | 'delivered' | 'refused', number>;

/** For any messages and any changes to them, all three do the same, and ours is dead after a refusal. */
export async function allAgree(numRuns: number): Promise<Counts> {
  const counts = { completed: 0, refusedHandshakes: 0, delivered: 0, refused: 0 };
  for (let left = numRuns; left > 0; left -= batchRuns) {
    const noiseC = await loadNoiseC();
    const property = fc.property(conversation, (talk) => {
      try {
        converse([openOurs, openTwin, noiseC.open], talk, counts);
      } finally {
        noiseC.freeAll();
      }
    });
    fc.assert(property, { numRuns: Math.min(left, batchRuns) });
  }
  return counts;
}

function converse(all: readonly OpenSide[], talk: Conversation, counts: Counts): void {
  const { keys, prologue, payloads, fault, steps } = talk;
  const initiators = all.map((open) => open({ s: keys.is, e: keys.ie, prologue }, true));
  const responders = all.map((open) => open({ s: keys.rs, e: keys.re, prologue }, false));
  const sent: Uint8Array[] = [];
  let changed = false;
  for (const [index, plaintext] of payloads.entries()) {
    const [writers, readers] = index % 2 === 0 ? [initiators, responders] : [responders, initiators];
    const message = inStep(writers, (side) => side.write(plaintext));
    assert.ok(message, 'a message that nobody can write');
    const arriving = fault?.message === index ? apply(fault.change, message, sent) : message;
    sent.push(message);
    changed ||= !equal(arriving, message);
    const read = inStep(readers, (side) => side.read(arriving));
    if (read === undefined) {
      assert.ok(changed, 'a message that is as it was written is refused');
      assertDead(readers[0] as Side);
      counts.refusedHandshakes += 1;
      return;
    }
    // The first message is unprotected: a change shows in the second.
    assert.ok(!changed || index === 0, 'a changed message is taken');
    if (!changed) assert.deepEqual(read, Buffer.from(plaintext));
  }
  counts.completed += 1;
  const ends = [initiators, responders].map((sides) => sides.map((side) => side.end())) as [Ended[], Ended[]];
  for (const [index, secret] of [keys.rs, keys.is].entries()) {
    const group = ends[index] as Ended[];
    const key = inStep(group, (end) => end.remoteStatic);
    assert.deepEqual(key, Buffer.from(x25519.getPublicKey(secret)));
    assert.deepEqual(
      inStep(group, (end) => end.handshakeHash),
      inStep(ends[0], (end) => end.handshakeHash),
    );
  }
  exchange(ends, steps, counts);
}

/** The messages after the handshake: one is accepted only if it is the next of its direction, unchanged. */
function exchange(ends: readonly [Ended[], Ended[]], steps: Conversation['steps'], counts: Counts): void {
  /** By receiver. */
  const waiting: [Sent[], Sent[]] = [[], []];
  const ever: Uint8Array[] = [];
  for (const step of steps) {
    if (step.do === 'send') {
      const ciphertext = inStep(ends[step.from], (end) => end.encrypt(step.payload)) ?? assert.fail();
      ever.push(ciphertext);
      waiting[1 - step.from]?.push({ ciphertext, plaintext: step.payload });
      continue;
    }
    const next = waiting[step.to][0];
    const message = next?.ciphertext ?? ever.at(-1) ?? empty;
    const arriving = step.change ? apply(step.change, message, ever) : message;
    const read = inStep(ends[step.to], (end) => end.decrypt(arriving));
    const isNext = next !== undefined && equal(arriving, next.ciphertext);
    assert.deepEqual(read, isNext ? Buffer.from(next.plaintext) : undefined);
    if (isNext) waiting[step.to].shift();
    counts[isNext ? 'delivered' : 'refused'] += 1;
  }
}

interface Sent {
  readonly ciphertext: Uint8Array;
  readonly plaintext: Uint8Array;
}

/** The result of all of them, or undefined when all refuse. Fails when they disagree. */
function inStep<T>(sides: readonly T[], act: (side: T) => Uint8Array): Buffer | undefined {
  const results = sides.map((side, index) => {
    try {
      return Buffer.from(act(side));
    } catch (error) {
      if (index === 0) assert.ok(isReceiverError(error, 'NOISE'), `no Noise error: ${String(error)}`);
      return undefined;
    }
  });
  for (const [index, result] of results.entries()) {
    assert.deepEqual(
      result?.toString('hex'),
      results[0]?.toString('hex'),
      `${names[index]} differs from ours`,
    );
  }
  return results[0];
}

function apply(how: Change, message: Uint8Array, sent: readonly Uint8Array[]): Uint8Array {
  const changed = Buffer.from(message);
  if (how.kind === 'extend') return Buffer.concat([changed, how.by]);
  if (how.kind === 'cut') return changed.subarray(0, Math.floor(how.at * message.length));
  if (how.kind === 'another') return sent[Math.floor(how.at * sent.length)] ?? changed;
  const place = Math.floor(how.at * message.length);
  if (place < changed.length) changed[place] = (changed[place] ?? 0) ^ (1 << how.bit);
  return changed;
}

/** A dead handshake neither continues nor reveals anything. */
export function assertDead(ours: Side): void {
  for (const act of [() => ours.write(empty), () => ours.read(Buffer.alloc(96)), () => ours.end()]) {
    assert.throws(act, (error) => isReceiverError(error, 'STATE'));
  }
}

function equal(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.from(one).equals(other);
}
