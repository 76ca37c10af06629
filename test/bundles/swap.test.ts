import assert from 'node:assert/strict';
import { mkdir, readdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { openIntake } from '../../src/bundles/intake.js';
import type { StagedBundle } from '../../src/bundles/staged.js';
import { swapIn } from '../../src/bundles/swap.js';
import { createPaths, dashboardId, deviceFromFile, fileName, type Layout } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { bundle, configName, file, treeOf } from './archives.js';

const key = { dashboardId: dashboardId('dashboard-1'), device: deviceFromFile(configName) };

async function layoutOf(t: TestContext): Promise<Layout> {
  return createPaths({ configDir: await tempDir(t) }).layout;
}

async function stage(layout: Layout, name: string): Promise<StagedBundle> {
  const intake = openIntake({ uploadsDir: layout.uploadsDir, configurationFilename: fileName(configName) });
  intake.write(bundle(file(name)));
  return intake.finish();
}

test('A bundle becomes the configuration, the old one goes as a whole, and the caches stay', async (t) => {
  const layout = await layoutOf(t);
  await swapIn(await stage(layout, 'old.h'), { layout, key });
  await mkdir(join(layout.subtree(key), 'build'));
  await writeFile(join(layout.subtree(key), 'build', 'cache'), 'kept');
  const staged = await stage(layout, 'new.h');
  await swapIn(staged, { layout, key });
  assert.deepEqual(
    [...(await treeOf(layout.subtree(key))).keys()],
    ['build/', 'build/cache', 'config/', 'config/kitchen.yaml', 'config/manifest.json', 'config/new.h'],
  );
  assert.deepEqual(await readdir(layout.trashDir), []);
  assert.deepEqual(await readdir(layout.uploadsDir), []);
  await staged.discard();
  assert.ok((await treeOf(layout.configTree(key))).has('new.h'), 'what is installed cannot be discarded');
});

test('When the new tree cannot come, the old one is put back', async (t) => {
  const layout = await layoutOf(t);
  await swapIn(await stage(layout, 'old.h'), { layout, key });
  const staged = await stage(layout, 'new.h');
  await staged.discard();
  await assert.rejects(swapIn(staged, { layout, key }), { code: 'ENOENT' });
  assert.ok((await treeOf(layout.configTree(key))).has('old.h'));
});

test('After a death between the two renames the next bundle is installed as if nothing had been', async (t) => {
  const layout = await layoutOf(t);
  await swapIn(await stage(layout, 'old.h'), { layout, key });
  await rename(layout.configTree(key), join(layout.trashDir, 'left'));
  await swapIn(await stage(layout, 'new.h'), { layout, key });
  assert.ok((await treeOf(layout.configTree(key))).has('new.h'));
});

test('A subtree that is a link is refused, wherever the link leads', async (t) => {
  for (const where of ['outside', 'another device']) {
    const layout = await layoutOf(t);
    const elsewhere =
      where === 'outside' ? await tempDir(t) : join(layout.buildsDir, 'other-peer', 'kitchen');
    await mkdir(elsewhere, { recursive: true });
    const staged = await stage(layout, 'new.h');
    await mkdir(join(layout.buildsDir, key.dashboardId));
    await symlink(elsewhere, layout.subtree(key));
    await assert.rejects(swapIn(staged, { layout, key }), { code: 'TRAVERSAL' });
    assert.deepEqual(await readdir(elsewhere), [], where);
  }
});

test('A configuration that is a link is replaced, and what it names is left alone', async (t) => {
  const layout = await layoutOf(t);
  const elsewhere = await tempDir(t);
  await mkdir(layout.subtree(key), { recursive: true });
  await writeFile(join(elsewhere, 'file'), 'kept');
  await symlink(elsewhere, layout.configTree(key));
  await swapIn(await stage(layout, 'new.h'), { layout, key });
  assert.deepEqual([...(await treeOf(elsewhere)).keys()], ['file']);
  assert.ok((await treeOf(layout.configTree(key))).has('new.h'));
});
