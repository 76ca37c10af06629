/** The check for linear time passes linear work and detects quadratic work. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { assertLinear } from './linear.js';

test('Linear work passes', () => {
  assertLinear((size) => void 'ab'.repeat(size / 2).search(/b{2}/), 2 ** 22, 'a line');
});

test('Quadratic work is detected before the full size', () => {
  let largest = 0;
  const square = (size: number): void => {
    largest = size;
    'a'.repeat(size).search(/a+b/);
  };
  assert.throws(() => assertLinear(square, 2 ** 22, 'a square'), /a square: a size of \d+ takes/);
  assert.ok(largest < 2 ** 22);
});
