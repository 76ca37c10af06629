/** Which installed releases are removed, with real directories and the real locks of their environments. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createReserve } from '../../src/disk/reserve.js';
import { systemClock } from '../../src/async/clock.js';
import { markReady, placeOf, stampUse, useOf, type VenvPlace } from '../../src/provision/venv-place.js';
import { acquireAt } from '../../src/locks/lease.js';
import { silentLog as log } from '../../src/log.js';
import { createPaths, type Layout } from '../../src/paths/index.js';
import {
  evict,
  type EvictableStore,
  type EvictableEntry,
  type EvictionOrder,
} from '../../src/retention/evictable.js';
import { createReleaseStore } from '../../src/retention/tool-store.js';
import { tempDir } from '../support/temp-dir.js';

const timing = { staleMs: 2_000, updateMs: 1_000 };
const reserve = createReserve([], log);
const dayMs = 86_400_000;
const signal = new AbortController().signal;

interface Here {
  readonly layout: Layout;
  readonly shelf: EvictableStore;
  readonly start: number;
  /** Opens the store again, as another receiver or after a restart. */
  again(): EvictableStore;
  plant(version: string, daysAgo?: number, bytes?: number): Promise<VenvPlace>;
  entry(version: string): Promise<EvictableEntry>;
  /** The environments on the disk. */
  here(): Promise<string[]>;
}

async function place(t: TestContext): Promise<Here> {
  const { layout } = createPaths({ configDir: join(await tempDir(t), 'config') });
  const { venvsDir, locksDir } = layout;
  for (const directory of [venvsDir, locksDir]) await mkdir(directory, { recursive: true });
  const start = Date.now();
  const again = (): EvictableStore => createReleaseStore({ layout, timing, clock: systemClock, log });
  const shelf = again();
  return {
    ...{ layout, shelf, start, again },
    async plant(version, daysAgo = 0, bytes = 50_000) {
      const at = placeOf({ venvsDir, locksDir, name: `esphome-${version}` });
      const venv = join(at.directory, 'venv-1');
      await mkdir(join(venv, 'bin'), { recursive: true });
      await writeFile(join(venv, 'bin', 'esphome'), Buffer.alloc(bytes, 1));
      await markReady(at, venv);
      await stampUse(at, start - daysAgo * dayMs);
      return at;
    },
    async entry(version) {
      const found = (await shelf.list()).find(
        ({ item }) => item.kind === 'version' && item.version === version,
      );
      return found ?? assert.fail(`${version} is not listed`);
    },
    here: async () => (await readdir(venvsDir)).toSorted(),
  };
}

const order = (here: Here, changes: Partial<EvictionOrder> = {}): EvictionOrder => ({
  ...{ ttlMs: 30 * dayMs, maxBytes: null, now: here.start, dryRun: false, signal, reserve, log },
  ...changes,
});

test('A release not used for ttlMs is removed completely, and the others stay', async (t) => {
  const here = await place(t);
  await here.plant('2026.9.1', 30);
  await here.plant('2026.10.0', 29);
  const dry = await evict(here.shelf, order(here, { dryRun: true }));
  assert.deepEqual(await here.here(), ['esphome-2026.10.0', 'esphome-2026.9.1']);
  const { removed } = await evict(here.shelf, order(here));
  assert.deepEqual(removed, dry.removed);
  assert.deepEqual(
    removed.map(({ item }) => item),
    [{ kind: 'version', version: '2026.9.1' }],
  );
  assert.deepEqual(await here.here(), ['esphome-2026.10.0']);
});

test('Above the limit the least recently used releases are removed, as few as suffice', async (t) => {
  const here = await place(t);
  for (const [version, days] of [
    ['2026.8.0', 3],
    ['2026.9.0', 2],
    ['2026.10.0', 1],
  ] as const) {
    await here.plant(version, days);
  }
  await here.shelf.measure?.(signal);
  await evict(here.shelf, order(here, { maxBytes: 150_000 }));
  assert.deepEqual(await here.here(), ['esphome-2026.10.0', 'esphome-2026.9.0']);
});

test('A release is measured once, even across restarts, and again when it is reinstalled', async (t) => {
  const here = await place(t);
  const at = await here.plant('2026.10.0');
  assert.equal((await here.entry('2026.10.0')).bytes, 0);
  await here.shelf.measure?.(signal);
  const { bytes } = await here.entry('2026.10.0');
  assert.ok(bytes >= 50_000, String(bytes));
  await writeFile(join(at.directory, 'venv-1', 'more'), Buffer.alloc(90_000, 1));
  await here.again().measure?.(signal);
  assert.deepEqual(
    (await here.again().list()).map((entry) => entry.bytes),
    [bytes],
  );
  await rename(join(at.directory, 'venv-1'), join(at.directory, 'venv-2'));
  await markReady(at, join(at.directory, 'venv-2'));
  assert.equal((await here.entry('2026.10.0')).bytes, 0);
  await here.shelf.measure?.(signal);
  assert.equal((await here.entry('2026.10.0')).bytes >= 140_000, true);
});

test('A release used after it was listed stays', async (t) => {
  const here = await place(t);
  const at = await here.plant('2026.10.0', 40);
  const entry = await here.entry('2026.10.0');
  await stampUse(at);
  assert.equal(await here.shelf.remove(entry), false);
  assert.ok(existsSync(join(at.directory, 'ready', 'bin', 'esphome')));
});

test('A release that is held is reported as in use, and one acquired after it was listed stays', async (t) => {
  const here = await place(t);
  const at = await here.plant('2026.10.0', 40);
  const entry = await here.entry('2026.10.0');
  const user = await useOf(at, timing);
  assert.equal(await here.shelf.remove(entry), false);
  assert.ok(existsSync(join(at.directory, 'ready', 'bin', 'esphome')));
  assert.equal((await here.entry('2026.10.0')).isInUse, true);
  assert.deepEqual(await evict(here.shelf, order(here)), { removed: [], left: [] });
  await user.leave();
  assert.equal(await here.shelf.remove(entry), true);
});

test('A release whose lock is held stays and is reported', async (t) => {
  const here = await place(t);
  const at = await here.plant('2026.10.0', 40);
  const lease = await acquireAt(at.lockDir, { reason: 'installing', timing, log });
  const { removed, left } = await evict(here.shelf, order(here));
  assert.deepEqual(removed, []);
  assert.deepEqual(left, [{ what: { kind: 'version', version: '2026.10.0' }, why: 'it is in use' }]);
  await lease.release();
});

test('An unknown or impossible time of use does not count as old', async (t) => {
  const here = await place(t);
  const texts = ['', String(here.start + 40 * dayMs), '5000'];
  for (const [index, text] of texts.entries()) {
    const at = await here.plant(`2026.10.${index}`);
    await writeFile(join(at.directory, 'used'), text);
  }
  for (const { usedAt } of await here.shelf.list()) assert.ok(usedAt >= here.start);
  assert.deepEqual(await evict(here.shelf, order(here)), { removed: [], left: [] });
  // It can still be removed.
  assert.equal(await here.shelf.remove(await here.entry('2026.10.1')), true);
});

test('Incomplete and foreign environments are not listed, and links in their place are not followed', async (t) => {
  const here = await place(t);
  const { venvsDir, receiverDir } = here.layout;
  await mkdir(join(venvsDir, 'esphome-2026.7.0', 'venv-half'), { recursive: true });
  await mkdir(join(venvsDir, 'esphome-..'), { recursive: true });
  await writeFile(join(venvsDir, 'esphome-2026.6.0'), '');
  const canary = join(receiverDir, 'canary');
  await mkdir(canary, { recursive: true });
  await writeFile(join(canary, 'alive'), 'alive');
  await symlink(canary, join(venvsDir, 'esphome-2026.5.0'));
  const at = await here.plant('2026.10.0', 40);
  await symlink(canary, join(at.directory, 'venv-1', 'link'));
  await here.shelf.measure?.(signal);
  assert.deepEqual(
    (await here.shelf.list()).map(({ item }) => item),
    [{ kind: 'version', version: '2026.10.0' }],
  );
  await evict(here.shelf, order(here));
  assert.equal(await readFile(join(canary, 'alive'), 'utf8'), 'alive');
  assert.deepEqual(await here.here(), [
    'esphome-..',
    'esphome-2026.5.0',
    'esphome-2026.6.0',
    'esphome-2026.7.0',
  ]);
});
