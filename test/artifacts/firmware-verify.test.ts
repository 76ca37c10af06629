/** The check after a compile, and the state of a build directory between two compiles. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { lstat, mkdir, readFile, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { cleanBuildDir, openBuildDir } from '../../src/compile/build-dir.js';
import { verifyBuild } from '../../src/artifacts/firmware.js';
import type { PublishGuard } from '../../src/disk/remove.js';
import { isReceiverError, messageOf } from '../../src/errors.js';
import { createPaths, dashboardId, deviceFromFile, type Paths } from '../../src/paths/index.js';
import { standInEsphome } from '../../src/testing/index.js';
import { tempDir } from '../support/temp-dir.js';

/** A lease that is not lost. */
const held: PublishGuard = { publish: (act) => act() };

interface Device {
  readonly paths: Paths;
  readonly configuration: string;
  readonly base: string;
  readonly subtree: string;
  readonly program: string;
  /** Compiles with the stand-in, with knobs in front of the configuration. */
  compile(knobs?: string, esphome?: string): void;
  editSidecar(change: Record<string, unknown>): Promise<void>;
}

async function device(t: TestContext): Promise<Device> {
  const base = await tempDir(t);
  const paths = createPaths({ configDir: join(base, 'config') });
  const key = { dashboardId: dashboardId('k3Jx0Qm7vXb2Zr8T'), device: deviceFromFile('kitchen.yaml') };
  const configuration = paths.formatConfiguration(key, 'kitchen.yaml');
  const subtree = paths.resolveDataDir(configuration);
  const yaml = paths.resolveConfigPath(configuration);
  await mkdir(dirname(yaml), { recursive: true });
  const sidecar = paths.resolveStoragePath(configuration);
  const [node, script] = standInEsphome as readonly [string, string];
  const env = { PATH: '/usr/bin:/bin', ESPHOME_DATA_DIR: subtree, ESPHOME_NOGITIGNORE: '1' };
  return {
    ...{
      paths,
      configuration,
      base,
      subtree,
      program: join(subtree, 'build/kitchen/.pioenvs/kitchen/program'),
    },
    compile(knobs = '', esphome = 'esphome:\n  name: kitchen\nhost:\n') {
      execFileSync('/bin/sh', ['-c', 'cat >"$1"', 'sh', yaml], { input: `# stand-in: ${knobs}\n${esphome}` });
      execFileSync(node, [script, 'compile', yaml], { env, stdio: 'ignore' });
    },
    async editSidecar(change) {
      await writeFile(sidecar, JSON.stringify({ ...JSON.parse(await readFile(sidecar, 'utf8')), ...change }));
    },
  };
}

async function assertElsewhere({ paths, configuration, base }: Device, what: RegExp): Promise<void> {
  await assert.rejects(verifyBuild(paths, configuration), (error) => {
    assert.ok(isReceiverError(error, 'WROTE_ELSEWHERE'), messageOf(error));
    assert.match(messageOf(error), what);
    assert.ok(!messageOf(error).includes(base), 'the message holds a host path');
    return true;
  });
}

test('A build at its expected path passes, even when there was nothing to rebuild', async (t) => {
  const at = await device(t);
  at.compile();
  at.compile();
  assert.equal((await verifyBuild(at.paths, at.configuration)).path, at.program);
});

test('A custom build path passes if it stays below the data directory', async (t) => {
  const at = await device(t);
  at.compile('', 'esphome:\n  name: kitchen\n  build_path: my/own\nhost:\n');
  const { path } = await verifyBuild(at.paths, at.configuration);
  assert.ok(path.startsWith(join(at.subtree, 'my/own/')));
});

test('A compiler that used another data directory is detected, although it exits with 0', async (t) => {
  const at = await device(t);
  at.compile('elsewhere');
  await assertElsewhere(at, /wrote elsewhere: the sidecar/);
  assert.ok(
    (
      await stat(join(dirname(at.paths.resolveConfigPath(at.configuration)), '.esphome/build/kitchen'))
    ).isDirectory(),
  );
});

test('A missing sidecar, a missing firmware and a firmware that is a link are detected', async (t) => {
  const at = await device(t);
  at.compile('no-sidecar');
  await assertElsewhere(at, /sidecar/);
  at.compile('no-firmware');
  await assertElsewhere(at, /firmware .* is missing/);
  at.compile('link-out');
  assert.ok((await lstat(at.program)).isSymbolicLink());
  await assertElsewhere(at, /program" lies outside/);
});

test('A sidecar that points elsewhere is detected, whatever exists there', async (t) => {
  const at = await device(t);
  at.compile();
  const outside = join(at.base, 'outside');
  await mkdir(outside);
  await writeFile(join(outside, 'program'), 'x');
  const build_path = join(at.subtree, 'build/kitchen');
  const firmware = { build_path, firmware_bin_path: at.program };
  const cases: readonly (readonly [Record<string, unknown>, RegExp])[] = [
    [{ build_path: outside, firmware_bin_path: join(outside, 'program') }, /build directory lies outside/],
    [{ build_path: at.subtree }, /build directory lies outside/],
    [{ build_path: `${build_path}/../../../../x` }, /build directory lies outside/],
    [{ build_path: null }, /has no build path/],
    [{ build_path: `${at.program}/below/a/file` }, /cannot be used \(ENOTDIR\)/],
    [{ build_path: join(at.subtree, 'build/gone') }, /build directory is missing/],
    [{ firmware_bin_path: join(outside, 'program') }, /firmware lies outside/],
    [{ firmware_bin_path: `${build_path}/../../config/kitchen.yaml` }, /firmware lies outside/],
    [{ firmware_bin_path: null }, /has no firmware path/],
    [{ firmware_bin_path: join(build_path, 'src') }, /"src" is not a regular file/],
    [{ firmware_bin_path: join(build_path, 'gone') }, /firmware "gone" is missing/],
  ];
  for (const [change, what] of cases) {
    await at.editSidecar({ ...firmware, ...change });
    await assertElsewhere(at, what);
  }
  await at.editSidecar(firmware);
  await verifyBuild(at.paths, at.configuration);
});

test('A parent directory that links out of the data directory is detected', async (t) => {
  const at = await device(t);
  at.compile();
  const pioenvs = dirname(dirname(at.program));
  await rename(pioenvs, join(at.base, 'moved'));
  await symlink(join(at.base, 'moved'), pioenvs);
  await assertElsewhere(at, /program" lies outside/);
  await rm(pioenvs);
  await rename(join(at.base, 'moved'), pioenvs);
  await verifyBuild(at.paths, at.configuration);
});

test('The environment’s directories are created, and the temporary one is removed at the end', async (t) => {
  const at = await device(t);
  const env = { HOME: join(at.base, 'tools/home'), TMPDIR: join(at.subtree, 'tmp') };
  const directory = await openBuildDir(at.paths, at.configuration, env, held);
  for (const place of Object.values(env)) assert.ok((await stat(place)).isDirectory());
  await directory.close({ trusted: true });
  assert.deepEqual((await readdir(at.subtree)).toSorted(), ['config']);
  assert.ok((await stat(env.HOME)).isDirectory());
});

test('A temporary directory that the build does not own stays', async (t) => {
  const at = await device(t);
  const TMPDIR = join(at.base, 'shared');
  const directory = await openBuildDir(at.paths, at.configuration, { TMPDIR }, held);
  await directory.close({ trusted: true });
  assert.ok((await stat(TMPDIR)).isDirectory());
});

test('After a build that may have left damage, its output is not reused', async (t) => {
  const at = await device(t);
  at.compile();
  await (await openBuildDir(at.paths, at.configuration, {}, held)).close({ trusted: true });
  const second = await openBuildDir(at.paths, at.configuration, {}, held);
  assert.ok((await stat(at.program)).isFile(), 'removed before it was needed');
  await second.close({ trusted: false });
  const next = await openBuildDir(at.paths, at.configuration, {}, held);
  assert.deepEqual([second.isEmptied, next.isEmptied], [false, true]);
  await assert.rejects(stat(at.program), { code: 'ENOENT' });
  await assert.rejects(verifyBuild(at.paths, at.configuration), { code: 'WROTE_ELSEWHERE' });
  at.compile();
  await next.close({ trusted: true });
  assert.equal((await openBuildDir(at.paths, at.configuration, {}, held)).isEmptied, false);
});

test('A receiver that dies during a compile counts as damage; cleaning ignores a sidecar that points outside', async (t) => {
  const at = await device(t);
  at.compile();
  const outside = join(at.base, 'outside');
  await mkdir(outside);
  await writeFile(join(outside, 'esphome_pch.h.gch'), '');
  await openBuildDir(at.paths, at.configuration, {}, held);
  for (const build_path of [outside, join(at.base, 'gone'), at.program, `${at.program}/x`, null]) {
    await at.editSidecar({ build_path });
    await openBuildDir(at.paths, at.configuration, {}, held);
    assert.deepEqual(await readdir(outside), ['esphome_pch.h.gch']);
  }
});

test('A mark that a build replaced with a link is not followed', async (t) => {
  const at = await device(t);
  const victim = join(at.base, 'victim');
  await writeFile(victim, 'precious');
  await symlink(victim, join(at.subtree, '.unfinished'));
  await openBuildDir(at.paths, at.configuration, {}, held);
  assert.equal(await readFile(victim, 'utf8'), 'precious');
});

test('Cleaning removes the build and keeps the configuration and the sidecar', async (t) => {
  const at = await device(t);
  at.compile();
  await openBuildDir(at.paths, at.configuration, {}, held);
  await cleanBuildDir(at.paths, at.configuration, held);
  assert.deepEqual((await readdir(at.subtree)).toSorted(), ['config', 'storage']);
  await cleanBuildDir(at.paths, at.configuration, held);
});
