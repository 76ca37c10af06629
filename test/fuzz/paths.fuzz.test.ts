import { test } from 'node:test';

import * as properties from '../paths/properties.js';

const runs = Number(process.env['FUZZ_RUNS'] ?? 250_000);

for (const [title, property] of Object.entries(properties)) {
  test(`paths: ${title}, ${runs} strings`, () => property(runs));
}
