/** The program itself: its version and its help. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { serveHelp } from '../../src/cli/flags.js';
import { readText } from '../house/sources.js';
import { tempDir } from '../support/temp-dir.js';

const main = new URL('../../src/cli/main.ts', import.meta.url).pathname;

async function said(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', main, ...args]);
  return stdout;
}

test('--version prints the name and the version of the package', async () => {
  const { version } = JSON.parse(readText('package.json')) as { version: string };
  assert.equal(await said('--version'), `koa-esphome-receiver ${version}\n`);
});

test('--help lists the commands, and after a command its flags', async () => {
  assert.match(await said('--help'), /^Usage: koa-esphome-receiver <command>\n[^]*\n {2}serve {2,}\S/);
  assert.equal(await said('serve', '--help'), serveHelp());
});

test('A start on a damaged key says which file it is, what it must be, and both ways out', async (t) => {
  const directory = await tempDir(t);
  const file = join(directory, '.esphome-receiver', 'identity.key');
  await mkdir(dirname(file));
  await writeFile(file, 'short');
  const esphome = process.execPath;
  await assert.rejects(
    said('serve', directory, '--port', '0', '--esphome', esphome),
    (error: { stderr: string }) => {
      const line = error.stderr.trim().split('\n').at(-1) ?? '';
      assert.match(
        line,
        /^koa-esphome-receiver: the identity key .* has 5 bytes: expected 32 random bytes; restore/,
      );
      assert.match(line, /--new-identity/);
      assert.ok(line.endsWith(`(${file})`), line);
      return true;
    },
  );
  assert.equal(await readFile(file, 'utf8'), 'short');
});
