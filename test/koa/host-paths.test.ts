/**
 * The host's path functions on real directories, for its own configurations and those of peers. Covers
 * src/artifacts/build-location.ts.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { cleanBuildDir } from '../../src/compile/build-dir.js';
import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { createHostPaths, type HostPaths } from '../../src/koa/host-paths.js';
import { createPaths, type Paths, type RemoteKey } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';

const local = 'kitchen.yaml';
const remote = `.esphome/.remote_builds/${exampleId}/kitchen/config/kitchen.yaml`;
const both: readonly string[] = [local, remote];

interface Setting {
  readonly root: string;
  readonly paths: Paths;
  readonly hook: HostPaths;
  /** The operations under a lease, in order. */
  readonly leases: string[];
}

async function setting(t: Cleanups): Promise<Setting> {
  const root = await tempDir(t);
  const configDir = join(root, 'configs');
  await mkdir(configDir);
  const paths = createPaths({ configDir });
  const leases: string[] = [];
  async function underLease<T>(key: RemoteKey, _reason: string, work: () => Promise<T>): Promise<T> {
    leases.push(`taken ${key.dashboardId}/${key.device}`);
    const result = await work();
    leases.push(existsSync(paths.resolveDataDir(remote) + '/build') ? 'not wiped' : 'wiped');
    return result;
  }
  const hook = createHostPaths({
    paths,
    removeDevice: () => Promise.reject(new Error('nothing is removed here')),
    async clean(configuration) {
      const key = paths.parseConfiguration(configuration);
      if (key !== null)
        await underLease(key, 'a clean', () =>
          cleanBuildDir(paths, configuration, { publish: (act) => act() }),
        );
    },
  });
  return { root, paths, hook, leases };
}

async function write(file: string, text: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, text);
}

interface Planted {
  readonly name?: string;
  readonly buildPath?: string | null;
  readonly firmware?: string | null;
  readonly espPlatform?: string;
  readonly toolchain?: string;
}

/** Writes the sidecar with the keys that ESPHome 2026.10 writes. */
async function writeSidecar(paths: Paths, configuration: string, planted: Planted = {}): Promise<void> {
  const { name = 'kitchen-node', espPlatform = 'HOST', toolchain = 'host' } = planted;
  const buildPath = planted.buildPath === undefined ? buildOf(paths, configuration) : planted.buildPath;
  const firmware = planted.firmware === undefined ? firmwareOf(paths, configuration) : planted.firmware;
  const sidecar = {
    ...{ storage_version: 1, name, friendly_name: 'Kitchen', comment: null, esphome_version: '2026.10.0' },
    ...{ src_version: 1, address: null, web_port: null, esp_platform: espPlatform, build_path: buildPath },
    ...{ firmware_bin_path: firmware, loaded_integrations: ['host', 'logger'], loaded_platforms: [] },
    ...{ no_mdns: false, framework: 'host', core_platform: 'host', toolchain, area: null },
    framework_version: null,
  };
  await write(paths.resolveStoragePath(configuration), `${JSON.stringify(sidecar, null, 2)}\n`);
}

function buildOf(paths: Paths, configuration: string): string {
  return join(paths.resolveDataDir(configuration), 'build', 'kitchen-node');
}

function firmwareOf(paths: Paths, configuration: string): string {
  return join(buildOf(paths, configuration), '.pioenvs', 'kitchen-node', 'program');
}

/** A complete build: configuration, sidecars, tree. */
async function writeBuild(paths: Paths, configuration: string): Promise<void> {
  const build = buildOf(paths, configuration);
  await write(paths.resolveConfigPath(configuration), 'esphome:\n  name: kitchen-node\nhost:\n');
  await writeSidecar(paths, configuration);
  await write(paths.resolveValidatedPath(configuration), '{}');
  await write(firmwareOf(paths, configuration), `firmware of ${configuration}`);
  await write(join(build, 'build_info.json'), '{"config_hash": 439041101, "esphome_version": "2026.10.0"}');
  await write(paths.resolveIdedataPath(configuration, { name: 'kitchen-node', toolchain: 'host' }), '{}');
}

/** Expects the code, and no host path in the message. */
function refusal(root: string, code: ErrorCode, message = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isReceiverError(error, code), `${code} expected, not ${String(error)}`);
    assert.match(error.message, message);
    assert.ok(!error.message.includes(root), error.message);
    return true;
  };
}

const readers = ['loadStorage', 'loadBuildArtifacts', 'buildSize', 'configHash'] as const;
const all = [...readers, 'wipeBuild', 'archivePaths'] as const;

test('A local and a remote build of the same name are each found in their own directory', async (t) => {
  const { paths, hook } = await setting(t);
  for (const configuration of both) await writeBuild(paths, configuration);
  await write(join(buildOf(paths, remote), 'README.txt'), 'more');

  for (const configuration of both) {
    const storage = await hook.loadStorage(configuration);
    assert.equal(storage.buildPath, buildOf(paths, configuration));
    assert.equal(storage.esphomeVersion, '2026.10.0');
    const { firmware, files } = await hook.loadBuildArtifacts(configuration);
    assert.equal(await readFile(firmware.path, 'utf8'), `firmware of ${configuration}`);
    assert.equal(firmware.bytes, `firmware of ${configuration}`.length);
    assert.deepEqual(files, [firmware]);
    assert.equal(await hook.configHash(configuration), '0x1a2b3c4d');
  }
  const [here, there] = await Promise.all(both.map((configuration) => hook.buildSize(configuration)));
  assert.equal(here?.files, 2);
  assert.equal(there?.files, 3);
  assert.equal((there?.bytes ?? 0) - (here?.bytes ?? 0), 'more'.length + remote.length - local.length);
});

test('The files of a platform are listed once per name, the firmware first', async (t) => {
  const { paths, hook } = await setting(t);
  const build = buildOf(paths, remote);
  const firmware = join(build, 'build', 'kitchen-node.bin');
  // A spelling that ESPHome can use: the same path must not be listed twice.
  const spelt = `${build}/build/../build/kitchen-node.bin`;
  await writeSidecar(paths, remote, { espPlatform: 'ESP32S3', toolchain: 'esp-idf', firmware: spelt });
  const first = '.pioenvs/kitchen-node/firmware.ota.bin';
  for (const file of [first, 'build/firmware.ota.bin', 'build/firmware.factory.bin', 'build/firmware.elf']) {
    await write(join(build, file), file);
  }
  await write(firmware, 'app');

  const { files } = await hook.loadBuildArtifacts(remote);
  assert.equal(files[0]?.name, 'kitchen-node.bin');
  assert.equal(files.find(({ name }) => name === 'firmware.ota.bin')?.path, join(build, first));
  assert.deepEqual(files.map(({ name }) => name).toSorted(), [
    'firmware.elf',
    'firmware.factory.bin',
    'firmware.ota.bin',
    'kitchen-node.bin',
  ]);
});

test("A toolchain's substitute for a firmware, and the listed downloads, are returned as for peers", async (t) => {
  const { paths, hook } = await setting(t);
  const offers = async (platform: Planted, ...leaves: readonly (readonly [string, string])[]) => {
    for (const configuration of both) {
      const places = dirname(firmwareOf(paths, configuration));
      await rm(buildOf(paths, configuration), { recursive: true, force: true });
      for (const [leaf, text] of leaves) await write(join(places, leaf), text);
      const firmware = join(places, String(platform.firmware));
      await writeSidecar(paths, configuration, { ...platform, firmware });
    }
    const names = async (configuration: string): Promise<string[]> =>
      (await hook.loadBuildArtifacts(configuration)).files.map(({ name }) => name);
    assert.deepEqual(await names(local), await names(remote));
    return names(remote);
  };
  const native = { espPlatform: 'NRF52', toolchain: 'sdk-nrf', firmware: 'firmware.bin' };
  assert.deepEqual(await offers(native, ['zephyr/zephyr.hex', ''], ['zephyr/app_update.bin', '']), [
    'app_update.bin',
    'zephyr.hex',
  ]);
  const list = JSON.stringify([{ filename: 'ota.rbl', public: true }, { filename: 'raw.bin' }]);
  const tiny = { espPlatform: 'BK72XX', toolchain: 'platformio', firmware: 'firmware.uf2' };
  assert.deepEqual(
    await offers(tiny, ['firmware.uf2', ''], ['firmware.json', list], ['ota.rbl', ''], ['raw.bin', '']),
    ['firmware.uf2', 'firmware.json', 'ota.rbl'],
  );
});

test('The error for a missing file names it: the sidecar, the build, the firmware, the build information', async (t) => {
  const { root, paths, hook } = await setting(t);
  for (const configuration of both) {
    const refused = (reader: (typeof readers)[number], message: RegExp): Promise<void> =>
      assert.rejects(hook[reader](configuration), refusal(root, 'STORAGE', message));

    for (const reader of readers) await refused(reader, /^the sidecar of the build is missing$/);

    await writeSidecar(paths, configuration, { buildPath: null, firmware: null });
    assert.equal((await hook.loadStorage(configuration)).buildPath, null);
    for (const reader of ['loadBuildArtifacts', 'buildSize', 'configHash'] as const) {
      await refused(reader, /^the sidecar of the build has no build path$/);
    }

    await writeSidecar(paths, configuration);
    for (const reader of ['loadBuildArtifacts', 'buildSize', 'configHash'] as const) {
      await refused(reader, /^the build directory is missing$/);
    }
    await mkdir(buildOf(paths, configuration), { recursive: true });
    await refused('loadBuildArtifacts', /^the firmware "\.pioenvs\/kitchen-node\/program" is missing$/);
    await refused('buildSize', /^the build directory is empty$/);
    await refused('configHash', /^the build information \(build_info\.json\) is missing$/);
  }
});

test('A damaged file is not reported as missing', async (t) => {
  const { root, paths, hook } = await setting(t);
  for (const configuration of both) {
    await writeBuild(paths, configuration);
    await write(join(buildOf(paths, configuration), 'build_info.json'), '{"config_hash": "0x1"}');
    await assert.rejects(
      hook.configHash(configuration),
      refusal(root, 'STORAGE', /build_info.* is damaged$/),
    );
    await write(paths.resolveStoragePath(configuration), '{"name": "no version"}');
    for (const ask of all.filter((name) => name !== 'wipeBuild')) {
      await assert.rejects(
        hook[ask](configuration),
        refusal(root, 'STORAGE', /^the sidecar of the build is damaged$/),
      );
    }
  }
});

test('Every function refuses a traversal before it touches anything', async (t) => {
  const { root, hook, leases } = await setting(t);
  for (const configuration of [
    '../kitchen.yaml',
    `${remote}/..`,
    '/etc/passwd',
    'a\\b.yaml',
    '.esphome/.remote_builds/x',
  ]) {
    for (const ask of all) {
      await assert.rejects(async () => hook[ask](configuration), refusal(root, 'TRAVERSAL'));
    }
    assert.throws(() => hook.resolveStoragePath(configuration), refusal(root, 'TRAVERSAL'));
  }
  assert.deepEqual(leases, []);
});

test("A peer's sidecar cannot name a build or a firmware outside its subtree", async (t) => {
  const { root, paths, hook } = await setting(t);
  await writeBuild(paths, local);
  const neighbour = buildOf(paths, local);
  const asksForTheBuild = ['loadBuildArtifacts', 'buildSize', 'configHash', 'archivePaths'] as const;
  for (const buildPath of [
    neighbour,
    '/',
    paths.resolveDataDir(remote),
    `${buildOf(paths, remote)}/../../..`,
  ]) {
    await writeSidecar(paths, remote, { buildPath });
    for (const ask of asksForTheBuild) {
      await assert.rejects(hook[ask](remote), refusal(root, 'TRAVERSAL', /outside/));
    }
  }
  await mkdir(buildOf(paths, remote), { recursive: true });
  await writeSidecar(paths, remote, { firmware: firmwareOf(paths, local) });
  await assert.rejects(hook.loadBuildArtifacts(remote), refusal(root, 'TRAVERSAL', /outside/));
  await writeBuild(paths, remote);
  await writeSidecar(paths, remote, { name: '../../../../kitchen-node' });
  await assert.rejects(hook.archivePaths(remote), refusal(root, 'TRAVERSAL', /node name/));
});

test("Links that a peer's build has planted are refused", async (t) => {
  const { root, paths, hook } = await setting(t);
  await writeBuild(paths, local);
  const subtree = paths.resolveDataDir(remote);
  const build = buildOf(paths, remote);

  /** A fresh build with one of its files or directories replaced by a link. */
  async function plant(place: string, target: string): Promise<void> {
    await rm(subtree, { recursive: true, force: true });
    await writeBuild(paths, remote);
    await rm(place, { recursive: true });
    await symlink(target, place);
  }
  const refused = (ask: (typeof all)[number]): Promise<void> =>
    assert.rejects(hook[ask](remote), refusal(root, 'TRAVERSAL', /outside/));

  await plant(firmwareOf(paths, remote), firmwareOf(paths, local));
  await refused('loadBuildArtifacts');
  await plant(join(build, '.pioenvs'), join(buildOf(paths, local), '.pioenvs'));
  await refused('loadBuildArtifacts');
  await plant(join(build, 'build_info.json'), join(buildOf(paths, local), 'build_info.json'));
  await refused('configHash');
  await plant(join(subtree, 'build'), join(paths.resolveDataDir(local), 'build'));
  for (const ask of ['loadBuildArtifacts', 'buildSize', 'configHash', 'archivePaths'] as const)
    await refused(ask);
  await plant(join(subtree, 'storage'), join(paths.resolveDataDir(local), 'storage'));
  for (const ask of [...readers, 'archivePaths'] as const) await refused(ask);
  await plant(paths.resolveStoragePath(remote), paths.resolveStoragePath(local));
  for (const ask of [...readers, 'archivePaths'] as const) await refused(ask);
  await plant(join(subtree, 'config'), paths.configDir);
  await refused('archivePaths');
  await plant(join(subtree, 'idedata'), join(paths.resolveDataDir(local), 'idedata'));
  await refused('archivePaths');

  await plant(firmwareOf(paths, remote), join(build, 'build_info.json'));
  await assert.rejects(hook.loadBuildArtifacts(remote), refusal(root, 'STORAGE', /not a regular file/));
  await plant(join(build, '.pioenvs'), join(root, 'elsewhere'));
  await assert.rejects(hook.loadBuildArtifacts(remote), refusal(root, 'STORAGE', /firmware .* is missing/));
  await plant(join(build, '.pioenvs'), '.pioenvs');
  await assert.rejects(hook.loadBuildArtifacts(remote), refusal(root, 'STORAGE', /cannot be used \(ELOOP\)/));
});

test('A path that no system call accepts is refused without being shown', async (t) => {
  const { root, paths, hook } = await setting(t);
  for (const configuration of both) {
    await writeBuild(paths, configuration);
    await writeSidecar(paths, configuration, { buildPath: `${buildOf(paths, configuration)}\0` });
    for (const ask of ['loadBuildArtifacts', 'buildSize', 'configHash', 'wipeBuild'] as const) {
      if (configuration === remote && ask === 'wipeBuild') continue;
      await assert.rejects(hook[ask](configuration), refusal(root, 'STORAGE'));
    }
    await writeSidecar(paths, configuration, { buildPath: paths.resolveConfigPath(configuration) + '/x' });
    await assert.rejects(hook.buildSize(configuration), refusal(root, 'STORAGE', /\(ENOTDIR\)/));
  }
});

test("Wiping a peer's build happens under its lease; configuration, sidecar and neighbours stay", async (t) => {
  const { paths, hook, leases } = await setting(t);
  for (const configuration of both) await writeBuild(paths, configuration);
  await hook.wipeBuild(remote);

  assert.deepEqual(leases, [`taken ${exampleId}/kitchen`, 'wiped']);
  assert.ok(!existsSync(join(paths.resolveDataDir(remote), 'idedata')));
  assert.ok(existsSync(paths.resolveConfigPath(remote)));
  assert.ok(existsSync(paths.resolveStoragePath(remote)));
  assert.equal((await hook.buildSize(local)).files, 2);
  await hook.wipeBuild(remote);
  await rm(paths.resolveDataDir(remote), { recursive: true });
  await hook.wipeBuild(remote);
  assert.equal(leases.length, 6);
});

test("A link in place of a peer's subtree or build does not redirect the wipe", async (t) => {
  const { root, paths, hook } = await setting(t);
  await writeBuild(paths, local);
  const subtree = paths.resolveDataDir(remote);
  await mkdir(dirname(subtree), { recursive: true });
  await symlink(paths.resolveDataDir(local), subtree);
  for (const ask of all)
    await assert.rejects(hook[ask](remote), refusal(root, 'TRAVERSAL', /outside|through a link/));
  await rm(subtree);
  await mkdir(subtree);
  await symlink(join(paths.resolveDataDir(local), 'build'), join(subtree, 'build'));
  await hook.wipeBuild(remote);
  assert.ok(!existsSync(join(subtree, 'build')));
  assert.equal((await hook.buildSize(local)).files, 2);
});

test('Wiping a local build takes no lease and leaves configuration, sidecar and neighbours', async (t) => {
  const { paths, hook, leases } = await setting(t);
  for (const configuration of both) await writeBuild(paths, configuration);
  await write(join(paths.resolveDataDir(local), 'build', 'kitchen-node2', 'kept'), '');
  await write(paths.resolveIdedataPath(local, { name: 'kitchen-node2' }), '{}');
  await hook.wipeBuild(local);

  assert.deepEqual(leases, []);
  assert.ok(!existsSync(buildOf(paths, local)));
  assert.ok(!existsSync(paths.resolveIdedataPath(local, { name: 'kitchen-node' })));
  assert.ok(existsSync(join(paths.resolveDataDir(local), 'build', 'kitchen-node2', 'kept')));
  assert.ok(existsSync(paths.resolveIdedataPath(local, { name: 'kitchen-node2' })));
  assert.ok(existsSync(paths.resolveConfigPath(local)));
  assert.ok(existsSync(paths.resolveStoragePath(local)));
  assert.equal((await hook.buildSize(remote)).files, 2);
  await hook.wipeBuild(local);
  await hook.wipeBuild('never-compiled.yaml');

  const dotted = join(paths.resolveDataDir(local), 'build', 'kitchen.v2');
  await write(join(dotted, 'old'), '');
  await writeSidecar(paths, local, { buildPath: dotted });
  await hook.wipeBuild(local);
  assert.ok(!existsSync(dotted));
});

test('A local build directory outside the usual parent is not wiped, and neither is anything else', async (t) => {
  const { root, paths, hook } = await setting(t);
  await writeBuild(paths, local);
  const data = paths.resolveDataDir(local);
  const precious = join(root, 'precious');
  await write(join(precious, 'photo'), '');
  await symlink(precious, join(data, 'build', 'linked'));
  for (const buildPath of [
    precious,
    data,
    join(data, 'build'),
    `${data}/build/../..`,
    join(data, 'build', 'linked'),
    '/',
  ]) {
    await writeSidecar(paths, local, { buildPath });
    await assert.rejects(hook.wipeBuild(local), refusal(root, 'TRAVERSAL'));
    assert.ok(existsSync(join(precious, 'photo')));
    assert.ok(existsSync(firmwareOf(paths, local)), buildPath);
    assert.ok(existsSync(paths.resolveIdedataPath(local, { name: 'kitchen-node' })));
  }
});

test('The paths to archive are returned whether or not they exist', async (t) => {
  const { paths, hook } = await setting(t);
  for (const configuration of both) {
    const always = {
      config: paths.resolveConfigPath(configuration),
      storage: paths.resolveStoragePath(configuration),
      validated: [
        paths.resolveValidatedPath(configuration, 'json'),
        paths.resolveValidatedPath(configuration, 'yaml'),
      ],
    };
    assert.deepEqual(await hook.archivePaths(configuration), { ...always, idedata: null, build: null });
    await writeBuild(paths, configuration);
    assert.deepEqual(await hook.archivePaths(configuration), {
      ...always,
      idedata: join(paths.resolveDataDir(configuration), 'idedata', 'kitchen-node.json'),
      build: buildOf(paths, configuration),
    });
  }
});
