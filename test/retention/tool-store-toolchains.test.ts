/**
 * Which toolchains are removed; each race is provoked at its moment, and a canary lies behind each link. Covers
 * src/toolchains/access.ts and src/toolchains/directories.ts.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createReserve } from '../../src/disk/reserve.js';
import type { CompileResult } from '../../src/compile/compile.js';
import { createTools } from '../../src/toolchains/run-with-tools.js';
import type { ToolchainGate } from '../../src/toolchains/gate.js';
import { silentLog as log } from '../../src/log.js';
import { evict, type EvictableEntry, type EvictionOrder } from '../../src/retention/evictable.js';
import { startWorkers, type Worker } from '../locks/helpers.js';
import { tempDir } from '../support/temp-dir.js';
import { toolPlace, type ToolPlace } from './tool-place.js';
import type { ToolAnswer, ToolQuestion } from './tool-worker.js';

const minuteMs = 60_000;
const reserve = createReserve([], log);
const dayMs = 86_400_000;
const signal = new AbortController().signal;

async function place(t: TestContext): Promise<ToolPlace> {
  return toolPlace(await tempDir(t));
}

const order = (here: ToolPlace, changes: Partial<EvictionOrder> = {}): EvictionOrder => ({
  ...{ ttlMs: 30 * dayMs, maxBytes: null, now: here.clock.wall(), dryRun: false, signal, reserve, log },
  ...changes,
});

async function entryOf(here: ToolPlace, toolchain: string): Promise<EvictableEntry> {
  return (await here.entry(toolchain)) ?? assert.fail(`${toolchain} is not listed`);
}

const namesOf = (entries: readonly Pick<EvictableEntry, 'item'>[]): string[] =>
  entries.map(({ item }) => (item.kind === 'toolchain' ? item.toolchain : item.kind)).toSorted();

test('A toolchain not used for ttlMs is removed, all its platforms become cold, and others stay', async (t) => {
  const here = await place(t);
  await here.build('esp32', 'idf', 'platformio', 'ccache');
  await here.build('nrf52', 'sdk-nrf');
  here.clock.advance(30 * dayMs - 1);
  await here.build('nrf52');
  assert.deepEqual(await evict(here.shelf, order(here)), { removed: [], left: [] });
  here.clock.advance(1);
  const dry = await evict(here.shelf, order(here, { dryRun: true }));
  assert.deepEqual(await here.list(), ['ccache', 'idf', 'platformio', 'sdk-nrf']);
  const wet = await evict(here.shelf, order(here));
  assert.deepEqual(wet, dry);
  assert.deepEqual(namesOf(wet.removed), ['esp-idf']);
  assert.deepEqual(await here.list(), ['ccache', 'platformio', 'sdk-nrf']);
  assert.deepEqual(await here.ready(), ['nrf52']);
  assert.deepEqual(await readdir(here.layout.trashDir), []);

  // Several platforms share this directory.
  await here.build('bk72xx');
  assert.equal(await here.shelf.remove(await entryOf(here, 'platformio')), true);
  assert.deepEqual([await here.list(), await here.ready()], [['ccache', 'sdk-nrf'], []]);
  const next = await here.enter('bk72xx');
  assert.equal(next.stamp, null);
  await next.leave();
});

test('A build that leaves records a use of each existing directory it can have used, whatever the file times', async (t) => {
  const here = await place(t);
  const start = here.clock.wall();
  await here.build('esp8266', 'arduino8266', 'platformio', 'ccache', 'home');
  await here.fill('idf');
  await here.shelf.list();
  const gate = await here.enter('esp8266');
  here.clock.advance(5 * minuteMs);
  assert.equal((await entryOf(here, 'platformio')).usedAt, start);
  const long = new Date(1_000);
  for (const name of await here.list()) await utimes(join(here.layout.toolchainsDir, name), long, long);
  await gate.leave();
  const uses = (await here.shelf.list()).map(({ item, usedAt }) => [
    item.kind === 'toolchain' && item.toolchain,
    (usedAt - start) / minuteMs,
  ]);
  assert.deepEqual(Object.fromEntries(uses), {
    arduino8266: 5,
    platformio: 5,
    ccache: 5,
    home: 5,
    'esp-idf': 0,
  });
  assert.ok(!existsSync(join(here.layout.toolchainsDir, '.used-sdk-nrf')));
});

test('A directory without a stamp counts as used now', async (t) => {
  const here = await place(t);
  await here.fill('idf');
  assert.equal((await entryOf(here, 'esp-idf')).usedAt, here.clock.wall());
  here.clock.advance(30 * dayMs - 1);
  assert.deepEqual((await evict(here.shelf, order(here))).removed, []);
  here.clock.advance(1);
  assert.deepEqual(namesOf((await evict(here.again(), order(here))).removed), ['esp-idf']);
});

test('A toolchain used after it was listed stays and is ready', async (t) => {
  const here = await place(t);
  await here.build('esp32', 'idf');
  here.clock.advance(40 * dayMs);
  const entry = await entryOf(here, 'esp-idf');
  await here.build('esp32');
  assert.equal(await here.shelf.remove(entry), false);
  assert.deepEqual([await here.list(), await here.ready()], [['idf'], ['esp32']]);
});

test('A toolchain is in use while a first or later build is in the gate, and the build is not disturbed', async (t) => {
  const here = await place(t);
  const cold = await here.enter('esp32');
  await here.fill('idf', 'ccache');
  here.clock.advance(40 * dayMs);
  for (const name of ['esp-idf', 'ccache']) {
    const entry = await entryOf(here, name);
    assert.equal(entry.isInUse, true);
    await assert.rejects(here.shelf.remove(entry), { code: 'LOCK_TIMEOUT' });
  }
  await cold.markReady();
  await cold.leave();
  here.clock.advance(40 * dayMs);
  const entry = await entryOf(here, 'esp-idf');
  assert.equal(entry.isInUse, false);
  const warm = await here.enter('esp32');
  const { left } = await evict({ ...here.shelf, list: async () => [entry] }, order(here));
  assert.deepEqual(left, [{ what: entry.item, why: 'it is in use' }]);
  await warm.recordBuild(null);
  await warm.leave();
  assert.deepEqual([await here.list(), await here.ready()], [['ccache', 'idf'], ['esp32']]);
});

test('A first build of another platform uses its shared directory, and one of an unknown platform uses all', async (t) => {
  const here = await place(t);
  await here.build('esp32', 'platformio', 'sdk-nrf');
  for (const platform of ['bk72xx', 'unknown']) {
    const gate = await here.enter(platform);
    assert.equal((await entryOf(here, 'platformio')).isInUse, true);
    assert.equal((await entryOf(here, 'sdk-nrf')).isInUse, platform === 'unknown');
    await gate.leave();
  }
});

test('A build that starts while its tools are being removed finds them cold', async (t) => {
  const here = await place(t);
  await here.build('esp32', 'idf');
  let coming: Promise<ToolchainGate> | undefined;
  const isWanted = async (): Promise<boolean> => {
    // The build is in the gate already, and about to register what it uses.
    const blocked = new Promise<void>((resolve) => {
      const { use } = here.directories;
      here.tools.directories.use = (names, request) => use(names, { ...request, onBlocked: () => resolve() });
    });
    coming = here.enter('esp32');
    await blocked;
    return true;
  };
  const trashed = await here.directories.setAside('idf', { reason: 'a test', isWanted });
  assert.ok(trashed !== null && existsSync(trashed));
  const gate = await coming;
  assert.equal(gate?.stamp, null);
  assert.deepEqual([await here.list(), await here.ready()], [[], []]);
  await gate?.leave();
});

test('A build whose tools are removed before it registers its use enters again, and alone', async (t) => {
  const here = await place(t);
  await here.build('esp32', 'idf');
  const { use } = here.directories;
  let times = 0;
  here.tools.directories.use = async (names, request) => {
    times += 1;
    if (times === 1) assert.equal(await here.shelf.remove(await entryOf(here, 'esp-idf')), true);
    return use(names, request);
  };
  const gate = await here.enter('esp32');
  assert.deepEqual([gate.stamp, times], [null, 2]);
  await here.fill('idf');
  await gate.markReady();
  await gate.leave();
  assert.deepEqual(await here.ready(), ['esp32']);
});

test('Links are removed, and their targets stay', async (t) => {
  const here = await place(t);
  const { toolchainsDir, receiverDir, trashDir } = here.layout;
  await here.build('esp32', 'idf', 'platformio');
  const elsewhere = join(receiverDir, 'elsewhere');
  await rename(join(toolchainsDir, 'idf'), elsewhere);
  await symlink(elsewhere, join(toolchainsDir, 'idf'));
  await symlink(elsewhere, join(toolchainsDir, 'platformio', 'link'));
  await here.shelf.measure?.(signal);
  assert.equal((await entryOf(here, 'esp-idf')).bytes < 50_000, true);
  here.clock.advance(40 * dayMs);
  const { removed } = await evict(here.shelf, order(here));
  assert.deepEqual(namesOf(removed), ['esp-idf', 'platformio']);
  assert.deepEqual([await here.list(), await readdir(trashDir)], [[], []]);
  assert.equal((await readFile(join(elsewhere, 'bin', 'gcc'))).length, 50_000);
});

test('An entry that is not a toolchain stays, whatever its age, and is reported by its path', async (t) => {
  const here = await place(t);
  const { toolchainsDir } = here.layout;
  await here.build('esp32', 'idf');
  await mkdir(join(toolchainsDir, 'my-tools'));
  await writeFile(join(toolchainsDir, 'notes.txt'), 'alive');
  here.clock.advance(400 * dayMs);
  const { removed, left } = await evict(here.shelf, order(here));
  assert.deepEqual(namesOf(removed), ['esp-idf']);
  const strange = (name: string): unknown => ({
    what: { kind: 'strange', place: `.receiver/toolchains/${name}` },
    why: 'it is not a toolchain',
  });
  assert.deepEqual(left, [strange('my-tools'), strange('notes.txt')]);
  assert.deepEqual(await here.list(), ['my-tools', 'notes.txt']);
});

test('A toolchain is measured once a day or after a use, and its size survives a restart', async (t) => {
  const here = await place(t);
  const bytes = async (): Promise<number> => (await entryOf(here, 'esp-idf')).bytes;
  const grown = async (name: string): Promise<boolean> => {
    const before = await bytes();
    await writeFile(join(here.layout.toolchainsDir, 'idf', name), Buffer.alloc(20_000, 1));
    await here.shelf.measure?.(signal);
    return (await bytes()) >= before + 20_000;
  };
  await here.build('esp32', 'idf');
  assert.equal(await bytes(), 0);
  await here.shelf.measure?.(signal);
  assert.equal((await bytes()) >= 50_000, true);
  here.clock.advance(dayMs - 1);
  assert.equal(await grown('a'), false);
  here.clock.advance(1);
  assert.equal(await grown('b'), true);
  here.clock.advance(2 * minuteMs);
  assert.equal(await grown('c'), false);
  const before = await bytes();
  await here.build('esp32');
  here.clock.advance(1);
  await here.shelf.measure?.(signal);
  assert.equal((await bytes()) >= before + 20_000, true);
  assert.equal(await grown('d'), false);
  assert.deepEqual(
    (await here.again().list()).map((entry) => entry.bytes),
    [await bytes()],
  );
  await rm(join(here.layout.toolchainsDir, 'idf'), { recursive: true });
  assert.deepEqual(await here.shelf.list(), []);
});

test('An aborted measurement records no size', async (t) => {
  const here = await place(t);
  await here.fill('idf');
  await here.shelf.measure?.(AbortSignal.abort());
  assert.equal((await entryOf(here, 'esp-idf')).bytes, 0);
});

test('The size limit removes toolchains and does not count caches, which are removed by age alone', async (t) => {
  const here = await place(t);
  await here.fill('ccache', 'home', 'host');
  await here.shelf.list();
  here.clock.advance(dayMs);
  await here.build('nrf52', 'sdk-nrf');
  await here.fill('idf');
  await here.shelf.measure?.(signal);
  const caches = ['ccache', 'home', 'host'];
  await evict(here.shelf, order(here, { maxBytes: 200_000 }));
  assert.deepEqual(await here.list(), ['ccache', 'home', 'host', 'idf', 'sdk-nrf']);
  await evict(here.shelf, order(here, { maxBytes: 1 }));
  assert.deepEqual(await here.list(), caches);
  here.clock.advance(30 * dayMs);
  assert.deepEqual(namesOf((await evict(here.shelf, order(here))).removed), caches);
});

test('Removing a cache leaves the tools ready', async (t) => {
  const here = await place(t);
  await here.build('esp32', 'idf', 'ccache');
  assert.equal(await here.shelf.remove(await entryOf(here, 'ccache')), true);
  assert.deepEqual([await here.list(), await here.ready()], [['idf'], ['esp32']]);
});

test('A build for the host platform enters no gate, and uses the caches but no toolchain', async (t) => {
  const here = await place(t);
  await here.fill('ccache', 'platformio');
  await here.shelf.list();
  const configuration = '.esphome/.remote_builds/dashboard/k/config/k.yaml';
  const file = here.tools.paths.resolveConfigPath(configuration);
  await mkdir(join(file, '..'), { recursive: true });
  await writeFile(file, 'esphome:\n  name: k\nhost:\n');
  const lease = { signal, recordBuild: async () => {} };
  const build = { id: 'a', configuration, version: '2026.10.0', lease, signal };
  here.clock.advance(40 * dayMs);
  await createTools(here.tools).compile(
    { ...build, output() {}, onWaiting() {}, onPlatform() {} },
    async (guard) => {
      await guard.recordBuild(null);
      const uses = (await here.shelf.list()).map((entry) => [namesOf([entry])[0], entry.isInUse]);
      assert.deepEqual(Object.fromEntries(uses), { ccache: true, platformio: false });
      await assert.rejects(here.shelf.remove(await entryOf(here, 'ccache')), { code: 'LOCK_TIMEOUT' });
      return { cancelled: true, marks: {} } as CompileResult;
    },
  );
  assert.equal((await entryOf(here, 'ccache')).usedAt, here.clock.wall());
  assert.deepEqual(namesOf((await evict(here.shelf, order(here))).removed), ['platformio']);
});

test('A toolchain that a build in another process uses is in use here until that process dies', async (t) => {
  const base = await tempDir(t);
  const here = await toolPlace(base);
  await here.build('esp32', 'idf');
  const [theirs] = await startWorkers(t, new URL('./tool-worker.ts', import.meta.url), 1);
  await ask(theirs, { do: 'open', base });
  const { stamp } = await ask(theirs, { do: 'enter', platform: 'esp32' });
  assert.ok(stamp);
  const entry = await entryOf(here, 'esp-idf');
  assert.equal(entry.isInUse, true);
  await assert.rejects(here.shelf.remove(entry), { code: 'LOCK_TIMEOUT' });
  assert.deepEqual([await here.list(), await here.ready()], [['idf'], ['esp32']]);

  const ours = await here.enter('esp32');
  assert.equal((await ask(theirs, { do: 'remove', toolchain: 'esp-idf' })).error, 'LOCK_TIMEOUT');
  await ours.leave();
  theirs!.process.kill('SIGKILL');
  assert.equal(await here.shelf.remove(await entryOf(here, 'esp-idf')), true);
});

const ask = (worker: Worker | undefined, question: ToolQuestion): Promise<ToolAnswer> =>
  worker!.ask<ToolAnswer>(question);
