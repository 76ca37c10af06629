import assert from 'node:assert/strict';
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { cleanBuildDir, openBuildDir } from '../../src/compile/build-dir.js';
import type { PublishGuard } from '../../src/disk/remove.js';
import { createPaths, type Paths } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { tempDir } from '../support/temp-dir.js';

/** A lease that is not lost. */
const held: PublishGuard = { publish: (act) => act() };

const configuration = `.esphome/.remote_builds/${exampleId}/kitchen/config/kitchen.yaml`;

/** A device with a configuration, a sidecar that names `buildPath`, a build there, and the usual directories. */
async function device(t: TestContext, below: string): Promise<{ paths: Paths; subtree: string }> {
  const paths = createPaths({ configDir: await tempDir(t) });
  const subtree = paths.resolveDataDir(configuration);
  const buildPath = join(subtree, below);
  for (const directory of [
    buildPath,
    ...['config', 'storage', 'idedata', 'build/x'].map((name) => join(subtree, name)),
  ]) {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'file'), 'x');
  }
  const sidecar = JSON.stringify({ storage_version: 1, build_path: buildPath });
  await writeFile(paths.resolveStoragePath(configuration), sidecar);
  return { paths, subtree };
}

test('Cleaning removes the build, even one elsewhere in the subtree, and keeps the rest', async (t) => {
  for (const below of ['build/kitchen', 'out/of/the/way']) {
    const { paths, subtree } = await device(t, below);
    await cleanBuildDir(paths, configuration, held);
    const left = await readdir(subtree, { recursive: true });
    assert.deepEqual(
      left.filter((name) => /^(build|idedata)|way/.test(name)),
      [],
    );
    assert.ok(left.includes('config/file') && left.includes('storage/kitchen.yaml.json'));
  }
});

test('A sidecar that names the configuration, the sidecars or another device does not get them removed', async (t) => {
  for (const below of ['config', 'storage', '.', 'config/deeper', '../hall/build']) {
    const { paths, subtree } = await device(t, below);
    await cleanBuildDir(paths, configuration, held);
    const left = await readdir(subtree);
    assert.ok(left.includes('config') && left.includes('storage'), below);
    assert.ok((await readdir(join(subtree, below))).includes('file'), below);
  }
});

test('A link in place of the build directory is refused, and its target stays', async (t) => {
  const { paths } = await device(t, 'build/kitchen');
  const twin = configuration.replaceAll('kitchen', 'twin');
  await symlink(paths.resolveDataDir(configuration), paths.resolveDataDir(twin));
  await assert.rejects(cleanBuildDir(paths, twin, held), { code: 'TRAVERSAL' });
  await assert.rejects(openBuildDir(paths, twin, {}, held), { code: 'TRAVERSAL' });
  assert.ok((await readdir(paths.resolveDataDir(configuration))).includes('build'));
});

test('A clean whose lease is lost goes no further: what it has moved is deleted, the rest and the mark stay', async (t) => {
  const { paths, subtree } = await device(t, 'build/kitchen');
  await openBuildDir(paths, configuration, {}, held);
  let moves = 0;
  const lost: PublishGuard = {
    publish(act) {
      moves += 1;
      return moves > 1 ? Promise.reject(new Error('the lease is lost')) : act();
    },
  };
  await assert.rejects(cleanBuildDir(paths, configuration, lost), /the lease is lost/);
  assert.deepEqual((await readdir(subtree)).toSorted(), [
    '.unfinished',
    'build',
    'config',
    'idedata',
    'storage',
  ]);
  assert.deepEqual(await readdir(join(subtree, 'build')), ['x']);
  assert.deepEqual(await readdir(paths.layout.trashDir), []);
});
