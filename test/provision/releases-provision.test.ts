/** Covers src/esphome/step.ts, src/provision/python.ts and src/provision/venv.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, mkdir, readFile, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { provisionEsphome } from '../../src/provision/releases.js';
import { findPython, pythonOf } from '../../src/provision/python.js';
import { isReceiverError, type ReceiverError } from '../../src/errors.js';
import { startChild } from '../support/child.js';
import { isAlive } from '../support/is-alive.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { brokenPython, fakePython } from '../esphome/fake-python.js';

const version = '2026.10.0';
const name = `esphome-${version}`;

/** Matches a receiver error; the caller checks the rest. */
function failsWith(code: string, look: (error: ReceiverError) => void = () => {}) {
  return (error: unknown): true => {
    assert.ok(isReceiverError(error), String(error));
    assert.equal(error.code, code);
    look(error);
    return true;
  };
}

test('A release is installed once, its output is passed on, and it is found again', async (t) => {
  const cacheDir = await tempDir(t);
  const python = await fakePython(await tempDir(t));
  const lines: string[] = [];
  const options = { version, cacheDir, python: python.path, onLine: (line: string) => void lines.push(line) };

  const [first] = await provisionEsphome(options);
  assert.match(await readFile(first, 'utf8'), /Version: 2026/);
  assert.ok(first.startsWith(join(cacheDir, name)) && first.endsWith('/bin/esphome'), first);
  assert.deepEqual(lines, ['Successfully installed\n']);

  assert.deepEqual(await provisionEsphome(options), [first]);
  assert.deepEqual(await python.deeds(), ['venv', 'pip']);
});

test('Of two concurrent processes one installs and the other waits', async (t) => {
  const cacheDir = await tempDir(t);
  const python = await fakePython(await tempDir(t), { pip: 'sleep 0.5' });
  const options = JSON.stringify({ version, cacheDir, python: python.path });
  const source = new URL('../../src/provision/releases.ts', import.meta.url).href;
  const program = `const { provisionEsphome } = await import('${source}');
    console.log((await provisionEsphome(${options}))[0]);`;
  const command = [process.execPath, '--import=tsx', '--input-type=module', '--eval', program] as const;

  const children = await Promise.all([startChild(t, command), startChild(t, command)]);
  const results = await Promise.all(children.map((child) => child.ended));
  const outputs = children.map((child) => child.output());
  assert.deepEqual(results, [0, 0], outputs.join('\n'));
  assert.equal(outputs[0], outputs[1]);
  assert.deepEqual(await python.deeds(), ['venv', 'pip']);
});

test('An incomplete environment of a crash is removed, and a broken environment is replaced', async (t) => {
  const cacheDir = await tempDir(t);
  const python = await fakePython(await tempDir(t));
  const place = join(cacheDir, name);
  await mkdir(join(place, 'venv-broken', 'bin'), { recursive: true });
  await mkdir(join(place, 'venv-half', 'lib'), { recursive: true });
  await brokenPython(join(place, 'venv-broken', 'bin', 'esphome'), 'bad interpreter');
  await symlink('venv-broken', join(place, 'ready'));

  const [program] = await provisionEsphome({ version, cacheDir, python: python.path });
  const left = (await readdir(place)).toSorted();
  assert.deepEqual(left.slice(0, 2), ['ready', 'used']);
  assert.equal(left.length, 3, left.join(' '));
  assert.ok(program.includes(left[2] ?? '?'));
});

test('A cancelled installation is stopped with all its processes and leaves nothing', async (t) => {
  const cacheDir = await tempDir(t);
  const python = await fakePython(await tempDir(t), { pip: 'sleep 1000 & echo "$!"; wait' });
  const abort = new AbortController();
  let sleeper = 0;
  const onLine = (line: string): void => void (sleeper = Number(line));
  const options = { version, cacheDir, python: python.path, signal: abort.signal, onLine };

  const installing = assert.rejects(provisionEsphome(options), failsWith('CANCELLED'));
  await waitFor(() => sleeper);
  const waiting = new AbortController();
  const behind = assert.rejects(
    provisionEsphome({ ...options, signal: waiting.signal }),
    failsWith('CANCELLED'),
  );
  waiting.abort();
  await behind;
  assert.ok(isAlive(sleeper), 'cancelling the one that waits must not end the other');

  abort.abort();
  await installing;
  assert.equal(isAlive(sleeper), false);
  assert.deepEqual(await readdir(cacheDir), ['locks']);
});

test('A failed installation names the step, keeps its output, and leaves nothing', async (t) => {
  const cacheDir = await tempDir(t);
  const directory = await tempDir(t);
  const failing = await fakePython(directory, { pip: 'echo "Something new"; exit 3' });
  const other = await fakePython(directory, { name: 'python3.12', prints: 'Version: 2026.10.01' });

  await assert.rejects(
    provisionEsphome({ version, cacheDir, python: failing.path }),
    failsWith('PROVISION', (error) => {
      assert.match(error.message, /^pip failed \(exit code 3\)$/);
      assert.match(String(error.facts['output']), /Something new/);
    }),
  );
  const words = {
    'No matching distribution found for esphome==2026.10.0': 'there is no such release',
    'OSError: [Errno 28] No space left on device': 'its disk is full',
    'Max retries exceeded with url: /simple/esphome/': 'the package index is unreachable',
    'Ignored the following versions that require a different Python version: 2026.10.0 Requires-Python <3.13':
      'it needs another Python',
  };
  const refusals = Object.entries(words).map(async ([says, message], index) => {
    const pip = `echo 'ERROR: ${says}'; exit 1`;
    const python = await fakePython(directory, { name: `python${index}`, pip });
    await assert.rejects(
      provisionEsphome({ version, cacheDir: await tempDir(t), python: python.path }),
      failsWith('PROVISION', (error) => assert.equal(error.message, message)),
    );
  });
  await Promise.all(refusals);
  await assert.rejects(
    provisionEsphome({ version, cacheDir, python: other.path }),
    failsWith('PROVISION', (error) => assert.match(error.message, /did not print 2026\.10\.0$/)),
  );
  assert.deepEqual(await readdir(cacheDir), ['locks']);
});

test('pip is stopped when it prints nothing for too long, however long it takes otherwise', async (t) => {
  const directory = await tempDir(t);
  const silent = await fakePython(directory, { pip: 'sleep 1000' });
  const options = { version, cacheDir: await tempDir(t), silenceTimeoutMs: 2_000 };
  await assert.rejects(
    provisionEsphome({ ...options, python: silent.path }),
    failsWith('PROVISION', (error) => assert.equal(error.message, 'pip printed nothing for 2 s')),
  );
  const slow = await fakePython(directory, {
    name: 'python3.12',
    pip: 'for n in 1 2 3 4 5 6; do echo $n; sleep 0.5; done',
  });
  assert.equal((await provisionEsphome({ ...options, python: slow.path })).length, 1);
});

test('A volume that is mounted noexec is named as the reason', async (t) => {
  const cacheDir = await tempDir(t);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,noexec', 'tmpfs', cacheDir], { stdio: 'ignore' });
  } catch {
    return t.skip('this account cannot mount');
  }
  try {
    const python = await fakePython(await tempDir(t));
    await assert.rejects(
      provisionEsphome({ version, cacheDir, python: python.path }),
      failsWith('PROVISION', ({ message }) => {
        assert.match(
          message,
          /could not be installed: the program "\w+" cannot be run; is the volume .* noexec\?$/,
        );
      }),
    );
  } finally {
    execFileSync('umount', [cacheDir]);
  }
});

test('pip sees the settings for the package index and none of the host’s credentials', async (t) => {
  const python = await fakePython(await tempDir(t), { pip: 'env' });
  const lines: string[] = [];
  await provisionEsphome({
    ...{ version, cacheDir: await tempDir(t), python: python.path },
    env: {
      ...{ PATH: process.env['PATH'], https_proxy: 'http://user:word@proxy', PIP_INDEX_URL: 'http://index' },
      ...{ SUPERVISOR_TOKEN: 'secret-1', AWS_SECRET_ACCESS_KEY: 'secret-2', PIP_TARGET: '/elsewhere' },
      ...{ PYTHONPATH: '/elsewhere', PYTHONHOME: '/elsewhere' },
    },
    onLine: (line) => lines.push(line),
  });
  const seen = lines.join('');
  for (const part of ['https_proxy=http://user:word@proxy', 'PIP_INDEX_URL=', 'PIP_NO_INPUT=1'])
    assert.ok(seen.includes(part), part);
  assert.doesNotMatch(seen, /secret|elsewhere/);
});

test('Only releases and a, b and rc pre-releases can be installed', async (t) => {
  const cacheDir = await tempDir(t);
  const refused = [
    '',
    '2026.10.0.dev1',
    '2026.10.0+local',
    '2026.10.0 --pre',
    '../up',
    'v2026',
    '1'.repeat(65),
  ];
  for (const wrong of refused) {
    await assert.rejects(provisionEsphome({ version: wrong, cacheDir }), failsWith('PROVISION'), wrong);
  }
  assert.deepEqual(await readdir(cacheDir), []);

  const python = await fakePython(await tempDir(t), { prints: 'Version: 2026.10.0b2' });
  await provisionEsphome({ version: '2026.10.0b2', cacheDir, python: python.path });
});

test('A Python on PATH that does not run, or is too old or too new, is skipped', async (t) => {
  const [shims, system] = [await tempDir(t), await tempDir(t)];
  await brokenPython(join(shims, 'python3.14'), 'pyenv: python3.14: command not found');
  await brokenPython(join(shims, 'python3.13'), 'pyenv: python3.13: command not found');
  await writeFile(join(shims, 'python3.12'), 'not executable');
  await mkdir(join(system, 'python3.14'));
  await fakePython(shims, { name: 'python3', version: '3.15.0' });
  const env = { PATH: `${shims}:${system}:relative`, PYENV_ROOT: '/nonexistent' };

  await assert.rejects(
    findPython({ env }),
    failsWith('PROVISION', (error) => {
      assert.match(error.message, /found no Python 3\.12 to 3\.14 .*apt install/);
      assert.deepEqual(error.facts.refused, [
        `${shims}/python3.14: pyenv: python3.14: command not found`,
        `${shims}/python3.13: pyenv: python3.13: command not found`,
        `${shims}/python3: is 3.15.0`,
      ]);
    }),
  );

  const good = await fakePython(system, { name: 'python3', version: '3.12.4' });
  assert.deepEqual(await findPython({ env }), { path: good.path, version: '3.12.4' });
});

test("The newest of pyenv's versions is taken when PATH has none", async (t) => {
  const root = await tempDir(t);
  for (const installed of ['3.11.9', '3.12.30', '3.13.9', '3.13.10', '3.13-dev']) {
    const bin = join(root, 'versions', installed, 'bin');
    await mkdir(bin, { recursive: true });
    await fakePython(bin, { name: 'python3', version: installed });
  }
  const env = { PATH: '', PYENV_ROOT: root };
  assert.equal((await findPython({ env })).version, '3.13.10');
  await chmod(join(root, 'versions', '3.13.10', 'bin', 'python3'), 0o644);
  assert.equal((await findPython({ env })).version, '3.13.9');
});

test('The Python of a command is the one in its script’s first line', async (t) => {
  const base = await tempDir(t);
  const python = (await fakePython(base)).path;
  const script = async (program: string, head: string): Promise<string[]> => {
    const file = join(base, program);
    await writeFile(file, `${head}\nimport re\n`);
    return pythonOf([file]);
  };
  assert.deepEqual(await script('esphome', `#!${python}`), [python]);
  assert.deepEqual(await pythonOf([python, '-m', 'esphome']), [python]);
  for (const head of [
    '#!/usr/bin/env python3',
    '#!/bin/sh',
    '',
    `#!${python} -I`,
    `#!/${'x'.repeat(600)}/python3`,
  ])
    assert.deepEqual(await script('other', head), [], head);
  assert.deepEqual(await pythonOf([join(base, 'gone')]), []);

  const first = await fakePython(base, { name: 'chosen', version: '3.12.9' });
  const env = { PATH: base, PYENV_ROOT: '/nonexistent' };
  assert.equal((await findPython({ env, first: [first.path] })).version, '3.12.9');
  assert.equal((await findPython({ env, first: [join(base, 'gone')] })).version, '3.13.7');
});
