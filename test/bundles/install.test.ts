/** Covers src/bundles/store.ts and src/bundles/remote-content.ts. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

import { systemClock } from '../../src/async/clock.js';
import { openIntake } from '../../src/bundles/intake.js';
import type { StagedBundle } from '../../src/bundles/store.js';
import { isInstalled, isInstallCut, repairInstall, installBundle } from '../../src/bundles/install.js';
import { startRecovery } from '../../src/recovery.js';
import { silentLog } from '../../src/log.js';
import { createPaths, dashboardId, deviceFromFile, fileName, type Layout } from '../../src/paths/index.js';
import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';
import { bundle, configName, file, treeOf } from './archives.js';
import { defaultOptions } from '../support/options.js';

const { bundleLimits } = defaultOptions;

const key = { dashboardId: dashboardId('dashboard-1'), device: deviceFromFile(configName) };

async function layoutOf(t: TestContext): Promise<Layout> {
  return createPaths({ configDir: await tempDir(t) }).layout;
}

async function stage(layout: Layout, name: string): Promise<StagedBundle> {
  const intake = openIntake({
    uploadsDir: layout.uploadsDir,
    configurationFilename: fileName(configName),
    ...{ bundleLimits, clock: systemClock },
  });
  intake.write(bundle(file(name)));
  return intake.finish();
}

function old(layout: Layout): string {
  return join(layout.subtree(key), '.config.old');
}

/** Does what a starting receiver does. */
async function recover(layout: Layout, stateDir: string): Promise<void> {
  for (const directory of layout.ownDirectories) await mkdir(directory, { recursive: true });
  const timing = { staleMs: 2_000, updateMs: 1_000 };
  const recovery = await startRecovery({ layout, stateDir, timing, jobIds: () => [], log: silentLog });
  await recovery.done;
  await recovery.close();
}

test('A bundle becomes the configuration, the old one is removed entirely, and the caches stay', async (t) => {
  const layout = await layoutOf(t);
  await installBundle(await stage(layout, 'old.h'), { layout, key });
  await mkdir(join(layout.subtree(key), 'build'));
  await writeFile(join(layout.subtree(key), 'build', 'cache'), 'kept');
  const staged = await stage(layout, 'new.h');
  await installBundle(staged, { layout, key });
  assert.deepEqual(
    [...(await treeOf(layout.subtree(key))).keys()],
    [
      ...['.config.from', 'build/', 'build/cache', 'config/', 'config/kitchen.yaml', 'config/manifest.json'],
      'config/new.h',
    ],
  );
  assert.deepEqual(await readdir(layout.uploadsDir), []);
  await staged.discard();
  assert.deepEqual(await readdir(layout.trashDir), []);
  assert.ok((await treeOf(layout.configTree(key))).has('new.h'), 'what is installed cannot be discarded');
});

test('When the new tree cannot be moved in, the old one is restored', async (t) => {
  const layout = await layoutOf(t);
  await installBundle(await stage(layout, 'old.h'), { layout, key });
  const staged = await stage(layout, 'new.h');
  await staged.discard();
  await assert.rejects(installBundle(staged, { layout, key }), {
    code: 'STORAGE',
    message: 'the uploaded bundle of this job is no longer on the build server; send the job again',
  });
  assert.ok((await treeOf(layout.configTree(key))).has('old.h'));
});

test('A swap killed before any of its steps leaves the old or the new tree complete, and the caches', async (t) => {
  const begun = ['mkdir', 'rm', 'writeFile', 'rename', 'rename'];
  const steps = [...begun, 'open', 'mkdir', 'rename', 'rm', 'rm', 'rm', 'rmdir'];
  const rounds = [...steps, 'end'].map(async (step, fatal) => {
    const layout = await layoutOf(t);
    const subtree = layout.subtree(key);
    await installBundle(await stage(layout, 'old.h'), { layout, key });
    for (const cache of ['build', 'idedata', 'storage']) {
      await mkdir(join(subtree, cache));
      await writeFile(join(subtree, cache, 'cache'), 'kept');
    }
    const worker = fileURLToPath(new URL('swap-worker.ts', import.meta.url));
    const command = [
      process.execPath,
      '--import',
      'tsx',
      worker,
      layout.buildsDir,
      'new.h',
      `${fatal}`,
    ] as const;
    const child = await startChild(t, command);
    assert.equal(await child.ended, step === 'end' ? 0 : 'SIGKILL', child.output());
    if (step === 'end') assert.equal(child.output(), `${steps.join(' ')}\n`);
    const isNew = fatal >= begun.length;
    assert.equal(
      await isInstallCut({ layout, key }),
      ['rename', 'open', 'mkdir'].includes(step) && fatal > 3,
    );
    const staging = join(layout.uploadsDir, 'the-job');
    assert.equal(await isInstalled(staging, { layout, key }), isNew, `before ${step} ${fatal}`);
    assert.deepEqual(await readdir(layout.uploadsDir), isNew ? [] : ['the-job']);

    await recover(layout, join(layout.buildsDir, '..'));
    const places = ['build/', 'build/cache', 'config/', 'config/kitchen.yaml'];
    // Between the two swaps, `.config.from` is missing and the configuration's origin is unknown.
    if (fatal !== 2) places.unshift('.config.from');
    if (!isNew) places.push('config/manifest.json');
    places.push(
      isNew ? 'config/new.h' : 'config/old.h',
      'idedata/',
      'idedata/cache',
      'storage/',
      'storage/cache',
    );
    assert.deepEqual([...(await treeOf(subtree)).keys()], places, `before ${step} ${fatal}`);
    const left = [...(await readdir(layout.uploadsDir)), ...(await readdir(layout.trashDir))];
    assert.deepEqual(left, [], `before ${step} ${fatal}`);
  });
  await Promise.all(rounds);
});

test('A job repairs an interrupted swap by itself', async (t) => {
  for (const isNewThere of [false, true]) {
    const layout = await layoutOf(t);
    await installBundle(await stage(layout, 'old.h'), { layout, key });
    await rename(layout.configTree(key), old(layout));
    if (isNewThere) await rename((await stage(layout, 'new.h')).directory, layout.configTree(key));
    const newest = await stage(layout, 'newest.h');
    await installBundle(newest, { layout, key });
    assert.ok((await treeOf(layout.configTree(key))).has('newest.h'));
    await newest.discard();
    assert.deepEqual(await readdir(layout.subtree(key)), ['.config.from', 'config']);
    assert.deepEqual(await readdir(layout.trashDir), []);
  }
});

test('A link in place of the old tree is removed, and its target stays', async (t) => {
  const layout = await layoutOf(t);
  const elsewhere = await tempDir(t);
  await writeFile(join(elsewhere, 'file'), 'kept');
  await mkdir(layout.subtree(key), { recursive: true });
  await symlink(elsewhere, old(layout));
  await repairInstall({ layout, key });
  assert.deepEqual(await readdir(layout.subtree(key)), []);
  await symlink(elsewhere, old(layout));
  await installBundle(await stage(layout, 'new.h'), { layout, key });
  assert.deepEqual(await readdir(layout.subtree(key)), ['.config.from', 'config']);
  assert.deepEqual([...(await treeOf(elsewhere)).keys()], ['file']);
});

test('A subtree that is a link is refused, whatever its target', async (t) => {
  for (const where of ['outside', 'another device']) {
    const layout = await layoutOf(t);
    const elsewhere =
      where === 'outside' ? await tempDir(t) : join(layout.buildsDir, 'other-peer', 'kitchen');
    await mkdir(elsewhere, { recursive: true });
    const staged = await stage(layout, 'new.h');
    await mkdir(join(layout.buildsDir, key.dashboardId));
    await symlink(elsewhere, layout.subtree(key));
    await assert.rejects(installBundle(staged, { layout, key }), { code: 'TRAVERSAL' });
    assert.deepEqual(await readdir(elsewhere), [], where);
  }
});

test('A configuration that is a link is replaced, and its target stays', async (t) => {
  const layout = await layoutOf(t);
  const elsewhere = await tempDir(t);
  await mkdir(layout.subtree(key), { recursive: true });
  await writeFile(join(elsewhere, 'file'), 'kept');
  await symlink(elsewhere, layout.configTree(key));
  await installBundle(await stage(layout, 'new.h'), { layout, key });
  assert.deepEqual([...(await treeOf(elsewhere)).keys()], ['file']);
  assert.ok((await treeOf(layout.configTree(key))).has('new.h'));
});

test('An installed bundle is not installed again, but any other one is, whatever the origin file holds', async (t) => {
  const layout = await layoutOf(t);
  const subtree = layout.subtree(key);
  const [first, other] = [await stage(layout, 'first.h'), await stage(layout, 'other.h')];
  await installBundle(first, { layout, key });
  await writeFile(join(layout.configTree(key), 'made.h'), 'by the build');
  await installBundle(first, { layout, key });
  assert.ok((await treeOf(layout.configTree(key))).has('made.h'));
  assert.equal(await isInstalled(other.directory, { layout, key }), false);
  const origin = join(subtree, '.config.from');
  const canary = join(await tempDir(t), 'canary');
  await writeFile(canary, basename(first.directory));
  for (const plant of [symlink(canary, `${origin}.link`), mkdir(`${origin}.link2`)]) await plant;
  for (const name of ['.link', '.link2']) {
    await rm(origin, { recursive: true });
    await rename(`${origin}${name}`, origin);
    assert.equal(await isInstalled(first.directory, { layout, key }), false, name);
  }
  await symlink(canary, `${origin}.link`);
  await rm(origin, { recursive: true });
  await rename(`${origin}.link`, origin);
  await installBundle(other, { layout, key });
  assert.equal(await readFile(canary, 'utf8'), basename(first.directory), 'no link is written through');
  assert.equal(await isInstalled(other.directory, { layout, key }), true);
  await assert.rejects(installBundle(first, { layout, key }), { code: 'STORAGE' });
  assert.ok((await treeOf(layout.configTree(key))).has('other.h'));
  assert.equal(await isInstalled(first.directory, { layout, key }), false, 'after a swap that failed');
});
