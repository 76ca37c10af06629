/** The check before a compile: where would this configuration build? */
import assert from 'node:assert/strict';
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import fc from 'fast-check';

import { precheck, readBuildPath, type PrecheckRequest } from '../../src/compile/precheck.js';
import type { CompileResult } from '../../src/compile/compile.js';
import { isReceiverError, messageOf } from '../../src/errors.js';
import { silentLog } from '../../src/log.js';
import { standInEsphome } from '../../src/testing/index.js';
import { tempDir } from '../support/temp-dir.js';

interface Look {
  readonly base: string;
  readonly dataDir: string;
  readonly lines: string[];
  run(esphome: string, more?: Partial<PrecheckRequest>): Promise<CompileResult | null>;
}

async function look(t: TestContext): Promise<Look> {
  const base = await tempDir(t);
  const dataDir = join(base, 'data');
  await mkdir(dataDir);
  const yaml = join(base, 'kitchen.yaml');
  const lines: string[] = [];
  const { signal } = new AbortController();
  return {
    ...{ base, dataDir, lines },
    async run(esphome, more) {
      await writeFile(yaml, `${esphome}\nhost:\n`);
      return precheck({
        ...{ esphome: standInEsphome, yaml, dataDir, cwd: base, signal, leaseSignal: signal, log: silentLog },
        env: { PATH: '/usr/bin:/bin', ESPHOME_DATA_DIR: dataDir },
        onLine: (line) => lines.push(line),
        ...more,
      });
    },
  };
}

test('A build path in the data directory passes, and the configuration is not shown', async (t) => {
  const { run, lines, dataDir } = await look(t);
  for (const place of ['build/kitchen', 'my/own', join(dataDir, 'x'), 'a/../b', '..a/b']) {
    assert.equal(await run(`esphome: {name: kitchen, build_path: ${place}}`), null, place);
  }
  assert.deepEqual(lines, []);
  assert.deepEqual(await readdir(dataDir), []);
});

test('A build path outside is refused before anything is started, without host paths in the message', async (t) => {
  const { run, base, dataDir } = await look(t);
  await symlink(base, join(dataDir, 'link'));
  await writeFile(join(dataDir, 'file'), '');
  for (const place of [
    '..',
    '../victim',
    '/victim',
    base,
    dataDir,
    'a/../..',
    '.',
    'link/victim',
    'link',
    'file/x',
  ]) {
    await assert.rejects(run(`esphome: {name: kitchen, build_path: ${place}}`), (error) => {
      assert.ok(isReceiverError(error, 'WROTE_ELSEWHERE'), place);
      assert.match(messageOf(error), /^nothing was started: /);
      return !messageOf(error).includes(base);
    });
  }
  assert.deepEqual((await readdir(base)).toSorted(), ['data', 'kitchen.yaml']);
});

test('An invalid configuration is shown, and its result is returned', async (t) => {
  const { run, lines } = await look(t);
  const result = await run('esphome: {name: "Bad Name"}');
  assert.equal(result?.exitCode, 2);
  assert.match(lines.join(''), /^Failed config\n/);
});

test('A cancel is returned as such, and a program that prints no build path is refused', async (t) => {
  const { run } = await look(t);
  const cancelled = await run('esphome: {name: kitchen}', { signal: AbortSignal.abort() });
  assert.equal(cancelled?.cancelled, true);
  await assert.rejects(run('esphome: {name: kitchen}', { esphome: ['/bin/true'] }), (error) =>
    isReceiverError(error, 'WROTE_ELSEWHERE'),
  );
});

const block = (value: string, rest = ''): string[] => [
  ...['substitutions:\n', "  esphome: ''\n", '  build_path: not/this\n', 'esphome:\n', '  name: kitchen\n'],
  ...[`  build_path: ${value}\n`, ...(rest === '' ? [] : [rest]), "  friendly_name: ''\n", 'host: {}\n'],
];

test('The path is read from the top-level block only, plain or single-quoted', () => {
  assert.equal(readBuildPath(block('build/kitchen')), 'build/kitchen');
  assert.equal(readBuildPath(block("'/x y: z/#q'")), '/x y: z/#q');
  assert.equal(readBuildPath(block("'it''s'")), "it's");
  assert.equal(readBuildPath(block('build/küche')), 'build/küche');
  assert.equal(readBuildPath(block('\\033[8mbuild/x\\033[28m')), 'build/x');
});

test('Forms that need a YAML parser are refused', () => {
  for (const value of [
    '"a\\x2f.."',
    '|',
    '>-',
    '*anchor',
    '&a b',
    '!tag x',
    '[a]',
    '{}',
    "'open",
    "'a' b",
    'a: b',
    'a #b',
    '',
  ]) {
    assert.equal(readBuildPath(block(value)), null, value);
  }
  assert.equal(readBuildPath(block("'/x", "    folded'\n")), null);
  assert.equal(readBuildPath(block('/x', '    folded\n')), null);
  assert.equal(readBuildPath([...block('a'), ...block('b')]), null);
  assert.equal(readBuildPath(['esphome:\n', '  name: x\n', '  build_path: a\n', '  build_path: b\n']), null);
  assert.equal(readBuildPath(['esphome:\n', '  name: x\n', 'host:\n', '  build_path: a\n']), null);
  assert.equal(readBuildPath([]), null);
});

test('No output makes the reader throw, and its result always appears in the output', () => {
  const line = fc.oneof(
    fc.constantFrom(
      'esphome:\n',
      '  build_path: a/b\n',
      "  build_path: 'a'\n",
      '  name: x\n',
      'host:\n',
      '    x\n',
    ),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 12 }), (lines) => {
      const path = readBuildPath(lines);
      if (path !== null) assert.ok(lines.join('').replaceAll("''", "'").includes(path));
    }),
  );
});
