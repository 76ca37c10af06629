/** The tables of docs/PROTOCOL.md are those of the code, word for word and in order. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import * as names from '../../src/link/names.js';

const document = readFileSync(new URL('../../docs/PROTOCOL.md', import.meta.url), 'utf8');

/** All rows of two and three cells whose first is a word in code. */
const rows = [...document.matchAll(/^\| `(\w+)` +\| (.+?) +\|(?: (.+?) +\|)?$/gm)].map(([, word, a, b]) =>
  b === undefined ? [word, a] : [word, a, b],
);

test('Every word of the wire stands in the specification with its meaning, and no other does', () => {
  const { frameTypes, ...tables } = names;
  const expected = [
    ...Object.values(tables).flatMap((table) => Object.entries(table)),
    ...Object.entries(frameTypes).map(([word, { direction, meaning }]) => [word, direction, meaning]),
  ];
  const sorted = (list: readonly unknown[]): string[] => list.map((row) => JSON.stringify(row)).toSorted();
  assert.deepEqual(sorted(rows), sorted(expected));
});
