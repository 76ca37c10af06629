/** The measure of linear time lets a line pass and finds a square. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertLinear } from './linear.js';

test('Work in proportion to its input passes', () => {
  assertLinear((size) => void 'ab'.repeat(size / 2).search(/b{2}/), 2 ** 22, 'a line');
});

test('Work with the square of its input is found before the whole', () => {
  let largest = 0;
  const square = (size: number): void => {
    largest = size;
    'a'.repeat(size).search(/a+b/);
  };
  assert.throws(() => assertLinear(square, 2 ** 22, 'a square'), /a square: a size of \d+ takes/);
  assert.ok(largest < 2 ** 22);
});
