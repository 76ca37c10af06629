/** Descriptions of options: readable amounts, and wrapped lines. Covers src/options/schema.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as z from 'zod';

import { factsOf, option } from '../../src/options/schema.js';
import { defaultText, limitsText, typeText, wrap } from '../../src/options/text.js';

test('A long number gets a readable amount in the unit that the name implies', () => {
  const defaults = (name: string, ...values: number[]): (string | undefined)[] =>
    values.map((value) => defaultText(factsOf(option(z.int().default(value), { summary: '' })), name));
  assert.deepEqual(defaults('ttlMs', 0, 999, 1_000, 90_000, 7_200_000, 86_400_000), [
    ...['0', '999', '1,000 (1 second)', '90,000 (90 seconds)', '7,200,000 (2 hours)', '86,400,000 (1 day)'],
  ]);
  assert.deepEqual(defaults('maxBytesPerPeer', 200, 1_024, 500_000_000, 2 ** 40), [
    ...['200', '1,024 (1 KiB)', '500,000,000 (500 MB)', '1,099,511,627,776 (1 TiB)'],
  ]);
  assert.deepEqual(defaults('members', 20_000), ['20,000']);
});

test('A port is written without separators', () => {
  const facts = factsOf(option(z.int().min(0).max(65_535).default(6055), { summary: '', isPort: true }));
  assert.deepEqual(
    [typeText(facts, 'port'), limitsText(facts, 'port'), defaultText(facts, 'port')],
    ['port', '0 to 65535', '6055'],
  );
});

test('A computed default is shown by its description, and a wrapped schema is unwrapped', () => {
  const computed = option(
    z.boolean().default(() => true),
    { summary: '', defaultText: 'as the moon is' },
  );
  assert.equal(defaultText(factsOf(computed), 'moon'), 'as the moon is');
  const nullable = factsOf(option(z.int().min(0).nullable().default(null), { summary: '' }));
  assert.deepEqual(
    [typeText(nullable, 'maxBytes'), defaultText(nullable, 'maxBytes'), limitsText(nullable, 'maxBytes')],
    ['integer (bytes) or `null`', '`null`', 'at least 0'],
  );
  assert.equal(factsOf(option(z.string(), { summary: '' })).isRequired, true);
});

test('Text wraps between words, but never between an amount and its unit', () => {
  assert.deepEqual(wrap('one two three', 7), ['one two', 'three']);
  assert.deepEqual(wrap('a verylongword b', 5), ['a', 'verylongword', 'b']);
  assert.deepEqual(wrap('at most (30 days) here', 12), ['at most', '(30 days)', 'here']);
});
