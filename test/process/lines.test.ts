import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { createLineSplitter } from '../../src/process/lines.js';

function split(chunks: readonly Buffer[], maxLineBytes = 1_000): string[] {
  const lines: string[] = [];
  const splitter = createLineSplitter({ maxLineBytes, onLine: (line) => void lines.push(line) });
  for (const chunk of chunks) {
    const sent = Buffer.from(chunk);
    splitter.push(sent);
    sent.fill('!'); // A chunk is the caller's again after the call.
  }
  splitter.end();
  return lines;
}

/** The same bytes in chunks that end at the given places. */
function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  const ends = [...places.map((place) => place % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b);
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
}

test('LF, CR and CRLF each end one line, which keeps its terminator', () => {
  assert.deepEqual(split([Buffer.from('a\nb\rc\r\nd\n\n\r\r\n\n\re')]), [
    'a\n',
    'b\r',
    'c\r\n',
    'd\n',
    '\n',
    '\r',
    '\r\n',
    '\n',
    '\r',
    'e',
  ]);
  assert.deepEqual(split([]), []);
});

test('A CR at the end of a chunk waits for its LF, and for nothing else', () => {
  assert.deepEqual(split(['a\r', '\nb\r', 'c\r'].map((text) => Buffer.from(text))), ['a\r\n', 'b\r', 'c\r']);
});

test('A line over its limit is delivered in pieces that split neither a character nor a CRLF', () => {
  assert.deepEqual(split([Buffer.from('abcdefgh\r\nij')], 4), ['abcd', 'efgh', '\r\n', 'ij']);
  assert.deepEqual(split([Buffer.from('abc\r\n')], 4), ['abc', '\r\n']);
  assert.deepEqual(split([Buffer.from('aöäü€')], 4), ['aö', 'äü', '€']);
  assert.deepEqual(split([Buffer.from('a🙂🙂')], 4), ['a', '🙂', '🙂']);
  assert.deepEqual(split([Buffer.alloc(10, 0x80)], 4).join(''), '\ufffd'.repeat(10));
});

test('A line that never ends takes no more memory than its limit', () => {
  const chunk = Buffer.alloc(65_536, 'x');
  let bytes = 0;
  let longest = 0;
  const splitter = createLineSplitter({
    maxLineBytes: 8_192,
    onLine(line) {
      bytes += line.length;
      longest = Math.max(longest, line.length);
    },
  });
  for (let count = 0; count < 320; count += 1) splitter.push(chunk);
  assert.equal(longest, 8_192);
  assert.ok(320 * 65_536 - bytes <= 8_192, 'what is not delivered is held');
});

const text = fc.oneof(
  fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  fc
    .array(fc.constantFrom('a', '\r', '\n', '\r\n', 'ö', '€', '🙂', '\ud800'), { maxLength: 60 })
    .map((parts) => Buffer.from(parts.join(''))),
);
const places = fc.array(fc.nat(), { maxLength: 8 });

test('However the input is cut, the lines are the same, and together they are the input', () => {
  fc.assert(
    fc.property(text, places, (bytes, cuts) => {
      const whole = bytes.toString('utf8');
      assert.deepEqual(split(cutAt(bytes, cuts)), whole.match(/\r\n|[^\r\n]*(\r\n|\r|\n)|[^\r\n]+$/g) ?? []);
    }),
    { numRuns: 500 },
  );
});

test('With any limit the pieces are within it, contain whole characters, and together are the input', () => {
  fc.assert(
    fc.property(text, places, fc.integer({ min: 4, max: 12 }), (bytes, cuts, limit) => {
      const pieces = split(cutAt(bytes, cuts), limit);
      assert.equal(pieces.join(''), bytes.toString('utf8'));
      if (!pieces.some((piece) => piece.includes('\ufffd')))
        for (const piece of pieces) assert.ok(Buffer.byteLength(piece) <= limit);
      for (const [index, piece] of pieces.entries())
        assert.ok(!(piece.endsWith('\r') && pieces[index + 1]?.startsWith('\n')), 'a CRLF in two');
    }),
    { numRuns: 500 },
  );
});
