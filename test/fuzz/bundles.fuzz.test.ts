import { test } from 'node:test';

import * as uploads from '../bundles/properties.js';
import * as files from '../esphome/properties.js';

const runs = Number(process.env['FUZZ_RUNS'] ?? 250_000);
/** An upload writes a tree of files, which takes a hundred times as long as reading a string. */
const uploadRuns = Math.ceil(runs / 50);

for (const [title, property] of Object.entries(files)) {
  test(`bundles: ${title}, ${runs} files`, () => property(runs));
}

for (const [title, property] of Object.entries(uploads)) {
  test(`bundles: ${title}, ${uploadRuns} uploads`, (t) => property(t, uploadRuns));
}
