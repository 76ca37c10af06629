/** The example as its reader starts it, with the stand-in for speed. What it shows it has compared by itself. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { standInEsphome } from '../../src/testing/index.js';
import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';

const main = fileURLToPath(new URL('../../examples/two-offloaders/main.ts', import.meta.url));

test('Two dashboards with a device of one name build at once, and each gets its own program', async (t) => {
  const temporary = await tempDir(t);
  const command = [process.execPath, '--import', 'tsx', main, '--once'] as const;
  const child = await startChild(t, [...command, '--esphome', standInEsphome.join(' ')], {
    env: { ...process.env, TMPDIR: temporary },
  });
  const code = await child.ended;
  const output = child.output();
  assert.equal(code, 0, output);
  const directories = [...output.matchAll(/built in {2}(\S+)/g)].map(([, directory = '']) => directory);
  assert.equal(new Set(directories).size, 2);
  for (const directory of directories)
    assert.match(directory, /^\.esphome\/\.remote_builds\/[\w-]+\/kitchen$/);
  assert.equal(new Set(output.match(/sha256 \w+/g)).size, 2);
  assert.deepEqual(
    (await readdir(temporary)).filter((name) => name.startsWith('two-')),
    [],
  );
});
