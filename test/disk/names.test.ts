/** Names of files that are not UTF-8: read, measured and removed without loss. */
import assert from 'node:assert/strict';
import { isUtf8 } from 'node:buffer';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { decodeName, encodeName, entriesIn, entriesInSync, nameBytes, onDisk } from '../../src/disk/names.js';
import { removeTree } from '../../src/disk/remove.js';
import { measure } from '../../src/disk/usage.js';
import { quote } from '../../src/errors.js';
import { assertLinear } from '../support/linear.js';
import { tempDir } from '../support/temp-dir.js';

const bytes = (latin1: string): Buffer => Buffer.from(latin1, 'latin1');
const anyBytes = fc.uint8Array({ maxLength: 300 }).map((name) => Buffer.from(name));
const nearUtf8 = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary' }).map((text) => Buffer.from(text)),
      fc.uint8Array({ maxLength: 3 }),
    ),
  )
  .map((parts) => Buffer.concat(parts));
const anyName = fc.oneof(anyBytes, nearUtf8);

test('Any bytes can be restored from their text, different bytes have different texts, and UTF-8 stays as it is', () => {
  fc.assert(
    fc.property(anyName, anyName, (one, other) => {
      const text = decodeName(one);
      assert.deepEqual(encodeName(text), one);
      assert.equal(nameBytes(text), one.length);
      assert.equal(text === decodeName(other), one.equals(other));
      assert.deepEqual(Buffer.from(onDisk(text)), one);
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      assert.equal(decodeName(Buffer.from(text)), text);
      assert.equal(onDisk(text), text, 'system calls get a string whenever possible');
    }),
  );
});

test('Exactly the characters that are UTF-8 keep their letters, one by one', () => {
  // Every second byte decides at the edges of Unicode's table; the others are the same for all leads.
  const last = [0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xff];
  for (let lead = 0; lead < 256; lead += 1) {
    for (let second = 0; second < 256; second += 1) {
      for (const third of last) {
        const sequences = [
          [lead, second, third],
          [lead, second, third, 0x80],
          [lead, second],
        ];
        for (const sequence of sequences.map((values) => Buffer.from(values))) {
          const text = decodeName(Buffer.concat([bytes('\xff'), sequence]));
          if (isUtf8(sequence)) assert.equal(text, `\udcff${sequence.toString()}`);
          else assert.ok(/\p{Surrogate}/u.test(text.slice(1)), sequence.toString('hex'));
        }
      }
    }
  }
});

test('The time to decode a name grows only with its length', () => {
  const work = (size: number): void => {
    for (let round = 0; round < 8; round += 1) encodeName(decodeName(Buffer.alloc(size, 0xff)));
  };
  assertLinear(work, 1 << 17, 'a name');
});

test('The text of bytes never holds a separator, a dot or a NUL that the bytes do not hold', () => {
  fc.assert(
    fc.property(anyName, (name) => {
      for (const sign of ['/', '.', '\0', '\\']) {
        assert.equal(decodeName(name).split(sign).length, name.toString('latin1').split(sign).length);
      }
    }),
  );
});

test('A byte that is not UTF-8 is shown as \\xNN in messages, among the letters as people wrote them', () => {
  assert.equal(quote(decodeName(bytes('caf\xe9'))), '"caf\\xe9"');
  assert.equal(
    quote(decodeName(Buffer.concat([Buffer.from('größe 💡 '), bytes('\xf0\x9f')]))),
    '"größe 💡 \\xf0\\x9f"',
  );
  assert.equal(quote('\\udce9'), '"\\\\udce9"', 'the six characters themselves stay what they are');
  assert.equal(quote('\ud800'), '"\\ud800"');
});

test('A tree with names that are not UTF-8 is listed, measured and removed', async (t) => {
  const base = await tempDir(t);
  const tree = join(base, 'tree');
  await mkdir(tree);
  const below = (latin1: string): Buffer => Buffer.concat([Buffer.from(`${tree}/`), bytes(latin1)]);
  mkdirSync(below('\xe9'));
  mkdirSync(below('\xe9/\xff\xfe'));
  for (const name of ['\xe9/\xff\xfe/f\xff', '\xe9/plain', 'caf\xe9'])
    writeFileSync(below(name), 'x'.repeat(1_000));

  const sorted = (names: readonly string[]): readonly string[] => names.toSorted();
  const listed: string[] = [];
  for await (const { name } of entriesIn(tree)) listed.push(name);
  const expected = sorted([decodeName(bytes('\xe9')), decodeName(bytes('caf\xe9'))]);
  assert.deepEqual(sorted(listed), expected);
  assert.deepEqual(sorted(entriesInSync(tree).map(({ name }) => name)), expected);
  assert.equal((await measure(tree)).bytes, 3_000);
  assert.equal((await measure(join(tree, decodeName(bytes('\xe9'))))).files, 2);

  await removeTree(join(tree, decodeName(bytes('caf\xe9'))));
  assert.equal(readdirSync(tree).length, 1);
  await removeTree(tree);
  assert.deepEqual(await readdir(base), []);
});
