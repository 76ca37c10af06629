/** The program itself: its version and its help. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { serveHelp } from '../../src/cli/flags.js';
import { readText } from '../house/sources.js';

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
