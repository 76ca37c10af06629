import assert from 'node:assert/strict';
import { test } from 'node:test';

import { isReceiverError } from '../../src/errors.js';
import { createPaths, formatConfiguration } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { assertLinear } from '../support/linear.js';

const { parseConfiguration, dashboardId, deviceFromFile } = createPaths({ configDir: '/config' });
const remote = `.esphome/.remote_builds/${exampleId}/kitchen`;
const key = { dashboardId: dashboardId(exampleId), device: deviceFromFile('kitchen.yaml') };

test('the configuration of a build contains its id, device and file', () => {
  assert.equal(formatConfiguration(key, 'kitchen.yaml'), `${remote}/config/kitchen.yaml`);
});

test('the standard form, a deeper YAML and the short forms all have the same key', () => {
  for (const text of [
    `${remote}/config/kitchen.yaml`,
    `${remote}/config/common/base.yaml`,
    `${remote}/kitchen.yaml`,
    `${exampleId}/kitchen/kitchen.yaml`,
  ]) {
    assert.deepEqual({ ...parseConfiguration(text) }, key);
  }
});

test('an ordinary configuration of the host is local', () => {
  for (const text of [
    'kitchen.yaml',
    'rooms/kitchen.yaml',
    'packages/common/base.yaml',
    'Küche (old).yaml',
    "it's.yaml",
    '.esphome/x.yaml',
    '-x.yaml',
    'kitchen',
    `${exampleId}/kitchen/hall.yaml`,
    'packages/kitchen/kitchen.yaml',
    'a..b.yaml',
  ]) {
    assert.equal(parseConfiguration(text), null);
  }
});

const refused: readonly (readonly [what: string, text: string])[] = [
  ['an empty string', ''],
  ['a dot segment', './kitchen.yaml'],
  ['a climbing segment', '../kitchen.yaml'],
  ['a climbing segment inside', 'a/../kitchen.yaml'],
  ['a dot segment with a trailing space', '.. /kitchen.yaml'],
  ['three dots', '.../kitchen.yaml'],
  ['an empty segment', 'a//b.yaml'],
  ['a trailing slash', 'a/'],
  ['an absolute path', '/etc/passwd'],
  ['a UNC path', '//server/share/x.yaml'],
  ['a backslash', 'a\\b.yaml'],
  ['a verbatim prefix', '\\\\?\\C:\\x.yaml'],
  ['a drive', 'C:/x.yaml'],
  ['a drive-relative path', 'C:x.yaml'],
  ['an alternate stream', 'kitchen.yaml::$DATA'],
  ['a URL', 'file:///etc/passwd'],
  ['encoded dots', '%2e%2e/x.yaml'],
  ['an encoded slash in a name', 'a/b%2fc.yaml'],
  ['a home directory', '~/x.yaml'],
  ['a NUL', 'kitchen.yaml\0.txt'],
  ['a line separator', 'a\u2028b.yaml'],
  ['full-width dots', '\uff0e\uff0e/x.yaml'],
  ['a two-dot leader', '\u2025/x.yaml'],
  ['dots with an ignorable between', '.\ufe0f./x.yaml'],
  ['a full-width slash', 'a\uff0f..\uff0fb.yaml'],
  ['a fraction slash', 'a\u2044b.yaml'],
  ['a direction override', 'a\u202eb.yaml'],
  ['an unpaired surrogate', 'a\udc00.yaml'],
  ['a Windows device', 'con.yaml'],
  ['a Windows device as a folder', 'nul/x.yaml'],
  ['10,000 segments', 'a/'.repeat(10_000)],
  ['a megabyte', 'a'.repeat(1_000_000)],
  ['a megabyte of dots', '.'.repeat(1_000_000)],
  ['the builds directory itself', '.esphome/.remote_builds'],
  ['a remote one without a device', `.esphome/.remote_builds/${exampleId}`],
  ['a remote one without a file', remote],
  ['a remote one with a short id', '.esphome/.remote_builds/abc/kitchen/kitchen.yaml'],
  ["the receiver's key", '.esphome-receiver/identity.key'],
  ["the receiver's own directory", '.esphome/.remote_builds/.receiver/jobs/x.yaml'],
  ['a device that no file name gives', `.esphome/.remote_builds/${exampleId}/Kitchen/kitchen.yaml`],
  ['a remote one that is no YAML', `${remote}/storage/kitchen.yaml.json`],
  ['a hidden folder in a subtree', `${remote}/.pioenvs/kitchen.yaml`],
  ['the remote prefix in capitals', `.ESPHOME/.Remote_Builds/${exampleId}/kitchen/kitchen.yaml`],
  ['the remote prefix with a trailing dot', `.esphome./.remote_builds./${exampleId}/kitchen/kitchen.yaml`],
  ['the remote prefix below a folder', `x/${remote}/kitchen.yaml`],
  ['the remote prefix with an ignorable', `.esphome/.remote\ufe0f_builds/${exampleId}/kitchen/kitchen.yaml`],
];

for (const [what, text] of refused) {
  test(`${what} is refused as a traversal`, () => {
    assert.throws(
      () => parseConfiguration(text),
      (error) => isReceiverError(error, 'TRAVERSAL'),
    );
  });
}

test('a value other than a string is refused', () => {
  for (const value of [null, undefined, 5, {}, ['kitchen.yaml']]) {
    assert.throws(
      () => parseConfiguration(value as never),
      (error) => isReceiverError(error, 'TRAVERSAL'),
    );
  }
});

test('parsing takes time linear in the length, and a megabyte is refused', () => {
  for (const unit of ['a/', '../', '%2e', '\u0308', '\ud800', ' .', '\ufe0f']) {
    const parse = (size: number): void => void parseConfiguration(unit.repeat(size));
    assertLinear((size) => attempt(() => parse(size)), 400_000, unit);
    assert.throws(() => parse(400_000));
  }
});

function attempt(work: () => void): void {
  try {
    work();
  } catch {
    // A short one can be accepted.
  }
}
