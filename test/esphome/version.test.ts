/** Asking an ESPHome for its version, and validating the versions that peers name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { isReceiverError, messageOf } from '../../src/errors.js';
import { isPinnable, isReleaseAtLeast, isVersion, probeVersion } from '../../src/esphome/version.js';
import { standInEsphome } from '../../src/testing/index.js';
import { assertLinear } from '../support/linear.js';

const env = { PATH: '/usr/bin:/bin' };

test('A command is asked for its version', async () => {
  assert.equal(await probeVersion(standInEsphome, { env }), '2026.10.0');
});

test('A command that is missing, fails, or prints nothing or something else is refused', async () => {
  const commands = [
    ['/nowhere/esphome'],
    ['/bin/sh', '-c', 'echo Version: 2026.10.0; exit 3'],
    ['/bin/sh', '-c', ':'],
    ['/bin/sh', '-c', 'echo Version: "$(id)"; echo Version: --index-url=x'],
    ['/bin/sh', '-c', 'yes Version: 1.0'],
  ] as const;
  for (const command of commands) {
    await assert.rejects(
      probeVersion(command, { env }),
      (error) => isReceiverError(error, 'PROVISION') && !messageOf(error).includes('/'),
      command.join(' '),
    );
  }
});

test('Asking can be cancelled', async () => {
  const controller = new AbortController();
  const asking = probeVersion(['/bin/sh', '-c', 'exec sleep 60'], { env, signal: controller.signal });
  controller.abort();
  await assert.rejects(asking, (error) => isReceiverError(error, 'CANCELLED'));
});

test('PEP 440 versions pass, everything else does not', () => {
  for (const good of [
    '2026.10.0',
    '1',
    'v1.2',
    '1!2.0',
    '2026.10.0b3',
    '1.0-RC.1',
    '1.0.post2',
    '1.0-4',
    '1.dev0',
  ]) {
    assert.equal(isVersion(good), true, good);
  }
  assert.equal(isVersion('1.0+local.x-1'), true);
  for (const bad of [
    '',
    '1.',
    '.1',
    '1..2',
    '1.0 ',
    ' 1.0',
    '1.0\n',
    '1.0;id',
    '-r x',
    '1.0+',
    '1.0+a..b',
    '1'.repeat(65),
  ]) {
    assert.equal(isVersion(bad), false, JSON.stringify(bad));
  }
  for (const other of [undefined, null, 2026, ['1.0'], {}]) assert.equal(isVersion(other), false);
});

test('Only releases and a, b and rc pre-releases can be pinned', () => {
  for (const good of ['2026.10.0', '2026.10.0b3', '1', '1.0rc1']) assert.equal(isPinnable(good), true, good);
  for (const bad of ['2026.11.0.dev1', '1.0.post1', '1.0+x', 'v1.0', '1.0RC1', '1.0c1', '', '1'.repeat(65)]) {
    assert.equal(isPinnable(bad), false, bad);
  }
});

test('Release lines are compared by number', () => {
  assert.equal(isReleaseAtLeast('2026.9.9', [2026, 10]), false);
  assert.equal(isReleaseAtLeast('2026.10.0rc1', [2026, 10]), true);
  assert.equal(isReleaseAtLeast('2027.1', [2026, 10]), true);
  assert.equal(isReleaseAtLeast('2026', [2026, 0]), true);
});

test('For any text the checks take linear time, and every pinnable text is a version', () => {
  const pieces = fc.constantFrom(
    '1',
    '10',
    '.',
    '-',
    '_',
    'a',
    'rc',
    'post',
    'dev',
    '+',
    '!',
    'v',
    ' ',
    '\n',
    'é',
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(pieces, { maxLength: 80 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (version) => {
      if (isPinnable(version)) assert.ok(isVersion(version), version);
      assert.equal(typeof isReleaseAtLeast(version, [2026, 10]), 'boolean');
    }),
  );
  assertLinear((size) => void isVersion(`${'1'.repeat(size)}x`), 100_000, 'digits');
  assertLinear((size) => void isReleaseAtLeast(`1${'-a'.repeat(size)}`, [1]), 100_000, 'parts');
});
