/**
 * Writes what is generated from the declarations of the options: docs/OPTIONS.md and the interfaces with their comments.
 * `npm run options -- --check` writes nothing and fails when a file is not what it would write.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { generatedFiles } from './options/files.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const isCheck = process.argv.includes('--check');

for (const [path, text] of await generatedFiles()) {
  if (isCheck && readFileSync(`${root}${path}`, 'utf8') !== text) {
    console.error(`${path} is out of date: run npm run options`);
    process.exitCode = 1;
  }
  if (!isCheck) writeFileSync(`${root}${path}`, text);
}
