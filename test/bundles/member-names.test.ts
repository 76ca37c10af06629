/** Names of members: what one disk takes for one name and another does not, and what is left out. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { createMemberTree, foldCase, foldOf } from '../../src/bundles/member-names.js';
import { isReceiverError } from '../../src/errors.js';
import { defaultOptions } from '../support/options.js';
import { tempDir } from '../support/temp-dir.js';

const limits = defaultOptions.bundleLimits;
const composed = 'caf\u00e9.h';

const pairs: readonly (readonly [what: string, first: string, second: string])[] = [
  ['case', 'README.md', 'readme.md'],
  ['the case of a directory', 'Lib/x.h', 'lib/y.h'],
  ['Unicode form', composed, composed.normalize('NFD')],
  ['the order of marks', '\u03b1\u0345\u0301.h', '\u03b1\u0301\u0345.h'],
  ['letters that fold to one', 'stra\u00dfe.h', 'STRASSE.h'],
];

for (const [what, first, second] of pairs) {
  test(`Names that differ by ${what} are two files where the disk keeps them apart, and refused elsewhere`, () => {
    const apart = createMemberTree(limits, (path) => path);
    apart.admit(first, 'file');
    apart.admit(second, 'file');
    assert.ok(apart.hasFile(first) && apart.hasFile(second));

    const folding = createMemberTree(limits, foldCase);
    folding.admit(first, 'file');
    assert.throws(
      () => folding.admit(second, 'file'),
      (error) => isReceiverError(error, 'BUNDLE') && /have the same name on the disk/.test(error.message),
    );
  });
}

test('The disk is asked by trying, and the directory is empty afterwards', async (t) => {
  const directory = await tempDir(t);
  const fold = foldOf(directory);
  assert.deepEqual(await readdir(directory), []);
  // The tests run where case counts; a disk that folds would give one name here.
  assert.notEqual(fold('A.h'), fold('a.h'));
  assert.throws(() => foldOf(join(directory, 'missing')), { code: 'ENOENT' });
});

test('Members below directories of caches and of version control are recognized at the top only, in any case', () => {
  const tree = createMemberTree(limits, (path) => path);
  for (const path of ['.git', '.git/config', '.GIT/HEAD', '.esphome/build/x', '.ESPHome/y', '.pioenvs/z'])
    assert.equal(tree.reservedDirectory(path), path.split('/')[0], path);
  for (const path of ['lib/.git/config', '.gitignore', '.wifi.yaml', 'git/x', 'a\\b.h', '💡/küche.h'])
    assert.equal(tree.reservedDirectory(path), null, path);
});
