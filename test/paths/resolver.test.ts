/** Covers src/paths/index.ts. */
import assert from 'node:assert/strict';
import { posix, win32 } from 'node:path';
import { test } from 'node:test';

import { createPaths, explicitDataDir } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';

const remote = `.esphome/.remote_builds/${exampleId}/kitchen/config/kitchen.yaml`;

test('a local configuration gets ESPHome’s paths in every deployment', () => {
  for (const [dataDir, data] of [
    [undefined, '/config/.esphome'],
    ['/data', '/data'],
    ['/big/volume', '/big/volume'],
  ] as const) {
    const paths = createPaths({ configDir: '/config', dataDir });
    assert.equal(paths.resolveDataDir('kitchen.yaml'), data);
    assert.equal(paths.resolveConfigPath('rooms/kitchen.yaml'), '/config/rooms/kitchen.yaml');
    assert.equal(paths.resolveStoragePath('kitchen.yaml'), `${data}/storage/kitchen.yaml.json`);
    assert.equal(paths.resolveValidatedPath('kitchen.yaml'), `${data}/storage/kitchen.yaml.validated.json`);
    assert.equal(
      paths.resolveValidatedPath('kitchen.yaml', 'yaml'),
      `${data}/storage/kitchen.yaml.validated.yaml`,
    );
    assert.equal(
      paths.resolveIdedataPath('kitchen.yaml', { name: 'k', toolchain: null }),
      `${data}/idedata/k.json`,
    );
    assert.equal(paths.resolveBuildPath('kitchen.yaml', { name: 'k' }), `${data}/build/k`);
  }
});

test('a YAML in a folder has its data beside it by default, else in the explicit directory', () => {
  const beside = createPaths({ configDir: '/config' });
  assert.equal(
    beside.resolveStoragePath('rooms/kitchen.yaml'),
    '/config/rooms/.esphome/storage/kitchen.yaml.json',
  );
  const explicit = createPaths({ configDir: '/config', dataDir: '/data' });
  assert.equal(explicit.resolveStoragePath('rooms/kitchen.yaml'), '/data/storage/kitchen.yaml.json');
});

test('a remote configuration gets its own subtree, independent of the local data directory', () => {
  for (const dataDir of [undefined, '/data']) {
    const paths = createPaths({ configDir: '/config', dataDir });
    const subtree = `/config/.esphome/.remote_builds/${exampleId}/kitchen`;
    assert.equal(paths.resolveDataDir(remote), subtree);
    assert.equal(paths.resolveConfigPath(remote), `${subtree}/config/kitchen.yaml`);
    assert.equal(paths.resolveStoragePath(remote), `${subtree}/storage/kitchen.yaml.json`);
    assert.equal(
      paths.resolveIdedataPath(remote, { name: 'k', toolchain: 'esp-idf' }),
      `${subtree}/idedata/k.json`,
    );
    assert.equal(
      paths.resolveIdedataPath(remote, { name: 'k', toolchain: 'arduino' }),
      `${subtree}/idedata/k.arduino.json`,
    );
    assert.equal(paths.resolveBuildPath(remote, { name: 'k' }), `${subtree}/build/k`);
  }
});

test('builds on another volume keep their configuration strings', () => {
  const paths = createPaths({ configDir: '/config', buildsDir: '/big volume/builds/' });
  assert.equal(paths.resolveDataDir(remote), `/big volume/builds/${exampleId}/kitchen`);
  assert.equal(paths.layout.locksDir, '/big volume/builds/.receiver/locks');
});

test('a relative configuration directory, a trailing slash and spaces are resolved once', () => {
  assert.equal(
    createPaths({ configDir: '/my config/' }).resolveStoragePath('a.yaml'),
    '/my config/.esphome/storage/a.yaml.json',
  );
  assert.equal(createPaths({ configDir: '.' }).configDir, process.cwd());
  assert.equal(createPaths({ configDir: 'x/../y' }).configDir, `${process.cwd()}/y`);
});

test('ESPHOME_BUILD_PATH moves local builds only', () => {
  const relative = createPaths({ configDir: '/c', buildPath: 'out' });
  assert.equal(relative.resolveBuildPath('a.yaml', { name: 'k' }), '/c/.esphome/out/k');
  const absolute = createPaths({ configDir: '/c', buildPath: '/fast' });
  assert.equal(absolute.resolveBuildPath('a.yaml', { name: 'k' }), '/fast/k');
  assert.match(absolute.resolveBuildPath(remote, { name: 'k' }), /kitchen\/build\/k$/);
});

test('a node name that would leave the directory is refused', () => {
  const paths = createPaths({ configDir: '/c' });
  for (const name of ['../x', '', 'a/b', '..']) {
    assert.throws(() => paths.resolveIdedataPath(remote, { name }), { code: 'TRAVERSAL' });
    assert.throws(() => paths.resolveBuildPath('a.yaml', { name }), { code: 'TRAVERSAL' });
  }
});

test('the Windows path rules give Windows paths', () => {
  const paths = createPaths({ configDir: 'C:\\config', path: win32 });
  assert.equal(
    paths.resolveStoragePath(remote),
    `C:\\config\\.esphome\\.remote_builds\\${exampleId}\\kitchen\\storage\\kitchen.yaml.json`,
  );
  assert.equal(createPaths({ configDir: '/config', path: posix }).configDir, '/config');
});

test("the environment's data directory follows ESPHome's own order", () => {
  assert.equal(explicitDataDir({}), undefined);
  assert.equal(explicitDataDir({ ESPHOME_DATA_DIR: '/d' }), '/d');
  assert.equal(explicitDataDir({ ESPHOME_DATA_DIR: '' }), process.cwd());
  for (const word of ['1', 'true', 'YES', 'on', 'maybe']) {
    assert.equal(explicitDataDir({ ESPHOME_DATA_DIR: '/d', ESPHOME_IS_HA_ADDON: word }), '/data');
  }
  for (const word of ['', '0', 'No', 'off', 'FALSE', 'disable']) {
    assert.equal(explicitDataDir({ ESPHOME_DATA_DIR: '/d', ESPHOME_IS_HA_ADDON: word }), '/d');
  }
  assert.throws(() => explicitDataDir({ ESPHOME_DATA_DIR: '/d\0' }), { code: 'TRAVERSAL' });
});

test('Overlapping directories are refused when the resolver is created', () => {
  for (const options of [
    { configDir: '/c', buildsDir: '/c' },
    { configDir: '/c/config', buildsDir: '/c' },
    { configDir: '/c', buildsDir: '/c/.esphome' },
    { configDir: '/c', buildsDir: '/c/builds' },
    { configDir: '/c', buildsDir: '/b', dataDir: '/b' },
    { configDir: '/c', buildsDir: '/b', dataDir: '/b/peer/device' },
  ]) {
    assert.throws(() => createPaths(options), { code: 'OPTIONS' }, JSON.stringify(options));
  }
  for (const options of [
    { configDir: '/c', buildsDir: '/b' },
    { configDir: '/c', buildsDir: '/c2' },
    { configDir: '/c', buildsDir: '/c/.esphome/builds' },
    { configDir: '/c', buildsDir: '/c/.builds', dataDir: '/data' },
  ]) {
    createPaths(options);
  }
});
