import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import * as fc from 'fast-check';

import { systemClock } from '../../src/async/clock.js';
import { openIntake } from '../../src/bundles/intake.js';
import { decodeName, onDisk } from '../../src/disk/names.js';
import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { makeBundle } from '../../src/koa/offloader.js';
import { reduceSecrets, referencesOf } from '../../src/client/bundle.js';
import { treeOf } from '../bundles/archives.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { defaultOptions } from '../support/options.js';

const { bundleLimits } = defaultOptions;

const code =
  (expected: ErrorCode) =>
  (error: unknown): boolean =>
    isReceiverError(error, expected);

/** Creates a configuration directory with these files. */
async function configDir(t: Cleanups, files: Readonly<Record<string, string | Buffer>>): Promise<string> {
  const root = join(await tempDir(t), 'config');
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), content);
  }
  return root;
}

/** Unpacks a bundle like a receiver and reads all files. */
async function received(t: Cleanups, bundle: Awaited<ReturnType<typeof makeBundle>>) {
  const intake = openIntake({
    uploadsDir: await tempDir(t),
    configurationFilename: bundle.file,
    ...{ bundleLimits, clock: systemClock },
  });
  intake.write(bundle.bytes);
  const { directory } = await intake.finish();
  const files = [...(await treeOf(directory)).keys()].filter((path) => !path.endsWith('/'));
  const read = (path: string): Promise<string> => readFile(join(directory, path), 'utf8');
  return { files, read };
}

const kitchen = `
esphome:
  name: kitchen
  includes:
    - my_header.h   # ours
wifi: !include .wifi.yaml
packages:
  base: !include common/base.yaml
  other: !include
    file: "common/with space.yaml"
    vars: { a: 1 }
sensor: !include_dir_merge_list sensors
external_components:
  - source: my_components
font:
  - file: 'fonts/Küche.ttf'
# not: !include unused.yaml
api: {encryption: {key: !secret api_key}}
text: hallway.yaml.txt /etc/passwd ../outside.yaml
`;

const files = {
  'kitchen.yaml': kitchen,
  '.wifi.yaml': 'password: !secret "wifi password"\n',
  'common/base.yaml': 'logger: !include logger.yaml\n',
  'common/logger.yaml': 'level: DEBUG\n',
  'common/with space.yaml': 'a: 1\n',
  'sensors/one.yaml': '- platform: uptime\n  name: !secret sensor_name\n',
  'sensors/deep/two.yaml': '- platform: internal_temperature\n',
  'my_components/empty/__init__.py': 'CONFIG_SCHEMA = {}\n',
  'my_components/empty/__pycache__/x.pyc': 'x',
  'my_header.h': 'int x;\n',
  'fonts/Küche.ttf': Buffer.from([0, 255, 1]),
  'unused.yaml': 'unused: true\n',
  'bedroom.yaml': 'esphome: {name: bedroom}\n',
  '.esphome/storage/kitchen.yaml.json': '{}',
  'secrets.yaml':
    'api_key: abc=\nadmin: topsecret\n"wifi password": |\n  two\n  lines\n# a note\nsensor_name: up\n',
  '../outside.yaml': 'outside: true\n',
};

const expected = [
  ...['.wifi.yaml', 'common/base.yaml', 'common/logger.yaml', 'common/with space.yaml', 'fonts/Küche.ttf'],
  ...['kitchen.yaml', 'my_components/empty/__init__.py', 'my_header.h', 'secrets.yaml'],
  ...['sensors/deep/two.yaml', 'sensors/one.yaml'],
];

test('A bundle contains the YAML, the files it refers to and nothing else, and a receiver accepts it', async (t) => {
  const bundle = await makeBundle({
    configDir: await configDir(t, files),
    file: 'kitchen.yaml',
    esphomeVersion: '2026.10.0',
  });
  assert.deepEqual(bundle.members, expected);
  const { files: unpacked, read } = await received(t, bundle);
  assert.deepEqual(unpacked, [...expected, 'manifest.json'].toSorted());
  assert.equal(await read('kitchen.yaml'), kitchen);
  assert.deepEqual(JSON.parse(await read('manifest.json')), {
    manifest_version: 1,
    esphome_version: '2026.10.0',
    config_filename: 'kitchen.yaml',
    files: expected,
    has_secrets: true,
  });
  assert.equal(
    await read('secrets.yaml'),
    'api_key: abc=\n"wifi password": |\n  two\n  lines\nsensor_name: up\n',
    'only the secrets that are used leave this machine',
  );
});

test('The same files give the same bytes, and without secrets there is no secrets file', async (t) => {
  const plain = { 'a.yaml': 'esphome: {name: a}\n', 'secrets.yaml': 'wifi: x\n' };
  const [first, second] = await Promise.all(
    [1, 2].map(async () => makeBundle({ configDir: await configDir(t, plain), file: 'a.yaml' })),
  );
  assert.deepEqual(first, second);
  assert.deepEqual(first?.members, ['a.yaml']);
});

test('Nothing behind a link is included, whether the link is a file, a directory or the YAML itself', async (t) => {
  const root = await configDir(t, {
    'a.yaml': 'x: !include link.yaml\ny: !include linked/b.yaml\nz: !include_dir_list linked\n',
    '../private/b.yaml': 'b: 1\n',
  });
  await symlink('../private/b.yaml', join(root, 'link.yaml'));
  await symlink('../private', join(root, 'linked'));
  await symlink('a.yaml', join(root, 'alias.yaml'));
  assert.deepEqual((await makeBundle({ configDir: root, file: 'a.yaml' })).members, ['a.yaml']);
  await assert.rejects(makeBundle({ configDir: root, file: 'alias.yaml' }), code('BUNDLE'));
  const through = join(dirname(root), 'through');
  await symlink(root, through);
  const bundle = await makeBundle({ configDir: through, file: 'a.yaml' });
  assert.deepEqual(bundle.members, ['a.yaml'], 'the configuration directory itself may be a link');
});

test('A missing YAML, a name outside the directory and an undefined secret are refused', async (t) => {
  const root = await configDir(t, { 'a.yaml': 'x: !secret gone\n', 'secrets.yaml': 'here: 1\n' });
  await mkdir(join(root, 'dir.yaml'));
  await assert.rejects(makeBundle({ configDir: root, file: 'none.yaml' }), code('BUNDLE'));
  await assert.rejects(makeBundle({ configDir: root, file: 'dir.yaml' }), code('BUNDLE'));
  await assert.rejects(makeBundle({ configDir: root, file: '../a.yaml' }), code('TRAVERSAL'));
  await assert.rejects(makeBundle({ configDir: root, file: 'secrets.yaml' }), code('TRAVERSAL'));
  await assert.rejects(makeBundle({ configDir: root, file: 'a.yaml' }), (error) => {
    assert.ok(isReceiverError(error, 'BUNDLE'));
    assert.match(error.message, /"gone"/);
    return true;
  });
});

test('Circular includes and very long names are handled', async (t) => {
  const long = `${'d'.repeat(90)}/${'e'.repeat(90)}/${'f'.repeat(90)}.yaml`;
  const root = await configDir(t, {
    'a.yaml': `b: !include b.yaml\nl: !include ${long}\nn: ${'n'.repeat(400)}.yaml\n`,
    'b.yaml': 'a: !include a.yaml\n',
    [long]: 'deep: true\n',
  });
  const bundle = await makeBundle({ configDir: root, file: 'a.yaml' });
  assert.deepEqual(bundle.members, ['a.yaml', 'b.yaml', long]);
  assert.equal(await (await received(t, bundle)).read(long), 'deep: true\n');
});

test('Any text can be searched, and a secret is found before any closing bracket', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
      referencesOf(text);
      reduceSecrets(text, ['a']);
    }),
    { numRuns: 200 },
  );
  for (const text of ['x: !secret key', '{x: !secret key}', '[!secret key, 1]', "x: !secret 'key'"]) {
    assert.deepEqual(referencesOf(text).secrets, ['key'], text);
  }
  const { text, missing } = reduceSecrets('a: 1\r\nb: "#x"\r\n  more\r\nc:\n- 1\nd: 2', ['b', 'd', 'e']);
  assert.equal(text, 'b: "#x"\r\n  more\r\nd: 2');
  assert.deepEqual(missing, ['e']);
});

test('Files below a directory whose names are not UTF-8 arrive under the same bytes, however long', async (t) => {
  const root = await configDir(t, {
    'other.yaml': 'external_components:\n  - source: parts\n',
    'parts/lamp/__init__.py': '',
    'parts/lamp/__pycache__/x.pyc': 'x',
  });
  const names = ['caf\xe9.h', '\xff\xfe/\xe9', `${'\xe9'.repeat(200)}/${'n'.repeat(150)}`].map((name) =>
    decodeName(Buffer.from(name, 'latin1')),
  );
  for (const name of names) {
    const file = onDisk(join(root, 'parts/lamp', name));
    mkdirSync(onDisk(dirname(join(root, 'parts/lamp', name))), { recursive: true });
    writeFileSync(file, `this is ${name.length}`);
  }
  const bundle = await makeBundle({ configDir: root, file: 'other.yaml' });
  const sent = ['__init__.py', ...names].map((name) => `parts/lamp/${name}`);
  assert.deepEqual([...bundle.members].toSorted(), [...sent, 'other.yaml'].toSorted());
  const tree = await received(t, bundle);
  assert.deepEqual(tree.files.toSorted(), [...sent, 'manifest.json', 'other.yaml'].toSorted());
});
