import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';

import fc from 'fast-check';

import {
  announcementFault,
  createAssembler,
  createBase64Decoder,
  type Assembler,
  type ChunkResult,
} from '../../src/protocol/transfer.js';

const whole = Buffer.from('the bytes of a bundle');
const sha256 = createHash('sha256').update(whole).digest('hex');

function push(assembler: Assembler, index: number, bytes: Buffer | string, isLast = false): ChunkResult {
  const dataBase64 = typeof bytes === 'string' ? bytes : bytes.toString('base64');
  return assembler.push({ index, dataBase64, isLast });
}

test('Any division of the bytes into chunks gives the same bytes back', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array(), { minLength: 1, maxLength: 12 }), (pieces) => {
      const bytes = Buffer.concat(pieces);
      fc.pre(bytes.length > 0);
      const assembler = createAssembler({
        totalBytes: bytes.length,
        numChunks: pieces.length,
        sha256: createHash('sha256').update(bytes).digest('hex').toUpperCase(),
      });
      const results = pieces.map((piece, i) =>
        push(assembler, i, Buffer.from(piece), i === pieces.length - 1),
      );
      assert.ok(results.every((result) => result.ok));
      assert.deepEqual(
        Buffer.concat(results.map((result) => (result.ok ? result.bytes : Buffer.alloc(0)))),
        bytes,
      );
      assert.deepEqual(
        results.map((result) => result.ok && result.complete),
        pieces.map((_, i) => i === pieces.length - 1),
      );
    }),
  );
});

const first = whole.subarray(0, 10);
const second = whole.subarray(10);
type Step = readonly [index: number, bytes: Buffer | string, isLast: boolean];

const refusals: readonly (readonly [
  title: string,
  reason: string,
  fatal: boolean,
  steps: readonly Step[],
])[] = [
  ['bytes that are not base64', 'chunk_decode_failed', true, [[0, 'AA=A', false]]],
  ['bad base64 before a wrong index', 'chunk_decode_failed', true, [[7, '!', false]]],
  ['a first chunk that is not number 0', 'out_of_order', true, [[1, first, false]]],
  [
    'a repeated chunk',
    'out_of_order',
    true,
    [
      [0, first, false],
      [0, first, false],
    ],
  ],
  ['a wrong index before too many bytes', 'out_of_order', true, [[1, Buffer.alloc(99), true]]],
  ['more bytes than announced', 'oversized', false, [[0, Buffer.alloc(22), false]]],
  ['too many bytes before a wrong last mark', 'oversized', false, [[0, Buffer.alloc(22), true]]],
  ['a last mark that comes too early', 'chunk_count_mismatch', true, [[0, first, true]]],
  [
    'a last chunk without its mark',
    'chunk_count_mismatch',
    true,
    [
      [0, first, false],
      [1, second, false],
    ],
  ],
  [
    'fewer bytes than announced',
    'undersized',
    false,
    [
      [0, first, false],
      [1, second.subarray(1), true],
    ],
  ],
  [
    'other bytes than announced',
    'hash_mismatch',
    false,
    [
      [0, first, false],
      [1, Buffer.alloc(second.length), true],
    ],
  ],
  [
    'a chunk after the last one',
    'post_completion',
    false,
    [
      [0, first, false],
      [1, second, true],
      [2, '', false],
    ],
  ],
];

for (const [title, reason, fatal, steps] of refusals) {
  test(`A transfer is refused for ${title}`, () => {
    const assembler = createAssembler({ totalBytes: whole.length, numChunks: 2, sha256 });
    const results = steps.map((step) => push(assembler, ...step));
    assert.deepEqual(results.pop(), { ok: false, reason, fatal });
    assert.ok(results.every((result) => result.ok));
    const further = push(assembler, steps.length, '');
    assert.deepEqual(further, { ok: false, reason: 'post_completion', fatal: false });
  });
}

test('Empty chunks are allowed, as on the other side', () => {
  const assembler = createAssembler({ totalBytes: whole.length, numChunks: 3, sha256 });
  assert.ok(push(assembler, 0, '').ok);
  assert.ok(push(assembler, 1, whole).ok);
  const last = push(assembler, 2, '', true);
  assert.ok(last.ok && last.complete);
});

test('An announcement is checked in the order of the wire', () => {
  assert.equal(announcementFault({ totalBytes: 0, numChunks: 0 }, 10), 'empty_bundle');
  assert.equal(announcementFault({ totalBytes: -1, numChunks: 1 }, 10), 'empty_bundle');
  assert.equal(announcementFault({ totalBytes: 11, numChunks: 0 }, 10), 'chunk_count_mismatch');
  assert.equal(announcementFault({ totalBytes: 11, numChunks: 1 }, 10), 'oversized');
  assert.equal(announcementFault({ totalBytes: 10, numChunks: 1 }, 10), null);
});

test('Base64 is accepted exactly where the strict grammar accepts it', () => {
  const strict = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
  const letters = [
    'A',
    'Q',
    'g',
    'w',
    'Z',
    'z',
    '0',
    '9',
    '+',
    '/',
    '=',
    '-',
    '_',
    ' ',
    '\n',
    '.',
    'é',
    '\u{1f600}',
  ];
  const near = fc.string({ unit: fc.constantFrom(...letters), maxLength: 14 });
  const decodeBase64 = createBase64Decoder();
  fc.assert(
    fc.property(near, (text) => {
      assert.equal(decodeBase64(text) !== null, strict.test(text), JSON.stringify(text));
    }),
    { numRuns: 3000 },
  );
  assert.deepEqual(decodeBase64('QR=='), Buffer.from('A'), 'spare bits may be set');
});

test('Decoded chunks keep their bytes when more are decoded, of any length', () => {
  const decodeBase64 = createBase64Decoder();
  const chunks = [32_768, 1, 32_768, 400_000, 0, 7, 262_144, 32_768].map((length) => randomBytes(length));
  const decoded = chunks.map((chunk) => decodeBase64(chunk.toString('base64')));
  assert.deepEqual(decoded, chunks);
});
