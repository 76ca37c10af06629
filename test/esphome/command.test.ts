/** Finding ESPHome, and its command lines. */
import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { test, type TestContext } from 'node:test';

import { compileArgs, configArgs, findEsphome } from '../../src/esphome/command.js';
import { tempDir } from '../support/temp-dir.js';

async function program(directory: string, name: string, mode = 0o755): Promise<string> {
  await mkdir(directory, { recursive: true });
  const file = join(directory, name);
  await writeFile(file, '#!/bin/sh\n');
  await chmod(file, mode);
  return file;
}

async function machine(
  t: TestContext,
): Promise<{ base: string; onPath: string; env: Record<string, string> }> {
  const base = await tempDir(t);
  const onPath = await program(join(base, 'bin'), 'esphome');
  return { base, onPath, env: { PATH: `${join(base, 'none')}:${join(base, 'bin')}` } };
}

test('By default it is the esphome on PATH, as an absolute path', async (t) => {
  const { onPath, env } = await machine(t);
  assert.deepEqual(await findEsphome({ environment: env }), [onPath]);
});

test('The option precedes ESPHOME_COMMAND, and that precedes PATH', async (t) => {
  const { base, env } = await machine(t);
  const other = await program(join(base, 'other'), 'esphome');
  const third = await program(join(base, 'third'), 'esphome');
  const set = { ...env, ESPHOME_COMMAND: other };
  assert.deepEqual(await findEsphome({ environment: set }), [other]);
  assert.deepEqual(await findEsphome({ esphome: third, environment: set }), [third]);
});

test('A command line is split at white space, unless all of it is the name of a file', async (t) => {
  const { base, env } = await machine(t);
  const python = await program(join(base, 'bin'), 'python3');
  const spaced = await program(join(base, 'my programs'), 'esphome');
  assert.deepEqual(await findEsphome({ environment: { ...env, ESPHOME_COMMAND: 'python3 -m  esphome' } }), [
    python,
    '-m',
    'esphome',
  ]);
  assert.deepEqual(await findEsphome({ esphome: spaced, environment: env }), [spaced]);
  assert.deepEqual(await findEsphome({ esphome: ['python3', '-m', 'esp home'], environment: env }), [
    python,
    '-m',
    'esp home',
  ]);
});

test('A command that does not exist gives null, and never another ESPHome', async (t) => {
  const { base, env } = await machine(t);
  const plain = await program(join(base, 'other'), 'esphome', 0o644);
  for (const esphome of [join(base, 'gone'), 'no-such-esphome', plain, join(base, 'bin'), [], '  ']) {
    assert.equal(await findEsphome({ esphome, environment: env }), null, String(esphome));
  }
});

test('A relative path is resolved at once, and relative entries of PATH are skipped', async (t) => {
  const { onPath } = await machine(t);
  assert.deepEqual(await findEsphome({ esphome: relative(process.cwd(), onPath), environment: {} }), [
    onPath,
  ]);
  const directory = relative(process.cwd(), join(onPath, '..'));
  assert.equal(await findEsphome({ environment: { PATH: `${directory}:` } }), null);
  assert.equal(await findEsphome({ environment: {} }), null);
});

test('The bootloader is skipped only by a release that supports it', () => {
  const args = (version: string, skipBootloader = true): readonly string[] =>
    compileArgs(['/bin/esphome'], '/c/k.yaml', { skipBootloader, version });
  const plain = ['/bin/esphome', '--dashboard', 'compile', '/c/k.yaml'];
  for (const version of ['2026.10.0', '2026.10.0b2', '2026.11.1', '2027.1.0.dev1', 'v2026.10']) {
    assert.deepEqual(args(version), [...plain, '--skip-bootloader'], version);
  }
  for (const version of ['2026.9.3', '2025.12.0', '2026', 'rubbish', ''])
    assert.deepEqual(args(version), plain, version);
  assert.deepEqual(args('2026.10.0', false), plain);
  assert.deepEqual(configArgs(['/p', '-m', 'esphome'], '/c/k.yaml').slice(0, 3), ['/p', '-m', 'esphome']);
});
