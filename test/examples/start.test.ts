/** The demo of `npm start`, with the stand-in compiler: what it prints, and what it says about a mistake of its user. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

import { standInEsphome } from '../../src/testing/index.js';
import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';

const main = fileURLToPath(new URL('../../examples/start/main.ts', import.meta.url));

async function start(t: TestContext, ...flags: string[]): Promise<{ code: unknown; output: string }> {
  const command = [process.execPath, '--import', 'tsx', main, '--directory', await tempDir(t)] as const;
  const child = await startChild(t, [...command, '--esphome', standInEsphome.join(' '), ...flags]);
  return { code: await child.ended, output: child.output() };
}

test('A wrong flag is answered by a sentence and the usage, an invalid port by a sentence, and neither by a stack', async (t) => {
  for (const [flags, code, said] of [
    [['--colour'], 2, /^Unknown option '--colour'.*\nUsage: npm start -- \[--once\]/m],
    [['--port'], 2, /^Option '--port <value>' argument missing\nUsage: /m],
    [['--port', 'abc'], 1, /^invalid --port: expected an integer from 0 to 65535, got "abc"$/m],
    [['--dashboard-port', '70000'], 1, /^invalid --dashboard-port: .* got "70000"$/m],
    [['--esphome', '/nope'], 1, /^"\/nope" is not a program$/m],
  ] as const) {
    const { code: ended, output } = await start(t, ...flags);
    assert.deepEqual([ended, /^ +at /m.test(output)], [code, false], output);
    assert.match(output, said);
  }
});

test('Every other program of the examples answers an unknown flag in this way', async (t) => {
  for (const program of [
    'dashboard/main',
    'pairing/main',
    'pairing/host',
    'pairing/other',
    'two-offloaders/main',
  ]) {
    const path = fileURLToPath(new URL(`../../examples/${program}.ts`, import.meta.url));
    const child = await startChild(t, [process.execPath, '--import', 'tsx', path, '--colour']);
    assert.equal(await child.ended, 2, program);
    assert.match(child.output(), /^Unknown option '--colour'.*\nUsage: \w+\.ts /m, program);
    assert.doesNotMatch(child.output(), /^ +at /m);
  }
});

test('Every other program of the examples that has ports answers an invalid one by a sentence', async (t) => {
  for (const [program, ...words] of [
    ['dashboard/main', await tempDir(t), '--port'],
    ['pairing/main', '--link-port'],
    ['pairing/host', await tempDir(t), '--port'],
    ['pairing/other', await tempDir(t), '--port'],
  ]) {
    const path = fileURLToPath(new URL(`../../examples/${program}.ts`, import.meta.url));
    const child = await startChild(t, [process.execPath, '--import', 'tsx', path, ...words, 'abc']);
    assert.equal(await child.ended, 1, program);
    const flag = words.at(-1);
    assert.match(child.output(), new RegExp(`^invalid ${flag}: expected an integer .*, got "abc"$`, 'm'));
    assert.doesNotMatch(child.output(), /^ +at /m);
  }
});

test('The error for a port in use names the flag that chooses another', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const port = String((server.address() as AddressInfo).port);
  for (const [flag, other] of [
    ['--port', '--dashboard-port'],
    ['--dashboard-port', '--port'],
  ] as const) {
    const { code, output } = await start(t, flag, port, other, '0');
    assert.equal(code, 1, output);
    assert.match(output, new RegExp(`in use.*; ${flag} chooses another port$`, 'm'));
    assert.doesNotMatch(output, /^ +at /m);
  }
});
