/** Resets of devices on real trees, with a canary behind each planted link. */
import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { resetDevices } from '../../src/retention/service.js';
import { isSuspect, type ToolchainKey } from '../../src/toolchains/gate.js';
import { keptDevices } from './kept-place.js';
import { keyOf, mine, other, place } from './place.js';

const rest = ['.config.from', 'config', 'storage'];
const keys = [keyOf(mine, 'kitchen'), keyOf(mine, 'hall')];

test("A reset removes the peer's builds, each under its lease; configurations and other peers' builds stay", async (t) => {
  const here = await place(t);
  for (const key of keys) await here.usage.measure(key);
  const { removed, left } = await resetDevices(keys, {}, here);
  assert.deepEqual(here.leased.toSorted(), [`${mine}/hall`, `${mine}/kitchen`]);
  for (const device of ['kitchen', 'hall']) {
    assert.deepEqual(await here.list(mine, device), rest);
    assert.ok((await here.list(other, device)).includes('build'));
  }
  assert.deepEqual(await readdir(here.layout.trashDir), []);
  assert.deepEqual(left, []);
  assert.equal(removed.length, 2);
  for (const { bytes } of removed) assert.ok(bytes >= 10_000, String(bytes));
});

test('A dry run reports what a reset would free, acquires no lease and changes nothing', async (t) => {
  const here = await place(t);
  for (const key of keys) await here.usage.measure(key);
  const dry = await resetDevices(keys, { dryRun: true }, here);
  assert.deepEqual(here.leased, []);
  assert.ok((await here.list(mine, 'kitchen')).includes('build'));
  const wet = await resetDevices(keys, {}, here);
  const names = (result: typeof dry): unknown[] => result.removed.map(({ item }) => item);
  assert.deepEqual(names(dry), names(wet));
});

test("Links are not followed, a file in a device's place stays, and a failure does not stop the rest", async (t) => {
  const here = await place(t);
  const outside = join(here.base, 'outside');
  await mkdir(join(outside, 'build'), { recursive: true });
  await writeFile(join(outside, 'build', 'canary'), 'alive');
  const peerDir = join(here.layout.buildsDir, mine);
  await symlink(outside, join(peerDir, 'attic'));
  await writeFile(join(peerDir, 'cellar'), 'a file');
  await symlink(outside, join(peerDir, 'kitchen', 'linked'));
  const { left } = await resetDevices([keyOf(mine, 'attic'), keyOf(mine, 'cellar'), ...keys], {}, here);
  assert.deepEqual(left, [
    {
      what: { kind: 'device', dashboardId: mine, device: 'attic' },
      why: 'the build directory is reached through a link',
    },
  ]);
  assert.equal(await readFile(join(outside, 'build', 'canary'), 'utf8'), 'alive');
  assert.equal(await readFile(join(peerDir, 'cellar'), 'utf8'), 'a file');
  for (const device of ['kitchen', 'hall']) assert.deepEqual(await here.list(mine, device), rest);
});

test('A device whose lease is held elsewhere stays unchanged', async (t) => {
  const here = await place(t);
  here.held.add('kitchen');
  const { removed, left } = await resetDevices(keys, {}, here);
  assert.deepEqual([removed.length, left.map(({ why }) => why)], [1, ['it is in use']]);
  assert.ok((await here.list(mine, 'kitchen')).includes('build'));
});

test('A reset stops between two devices when the receiver closes, and reports the rest', async (t) => {
  const here = await place(t);
  const ending = new AbortController();
  here.onLease = () => ending.abort();
  const { removed, left } = await resetDevices(keys, {}, { ...here, signal: ending.signal });
  assert.equal(removed.length, 1);
  assert.deepEqual(left, [
    { what: { kind: 'device', dashboardId: mine, device: 'hall' }, why: 'the build server is stopping' },
  ]);
  assert.deepEqual(await here.list(mine, 'kitchen'), rest);
  assert.ok((await here.list(mine, 'hall')).includes('build'));
});

test("A dashboard's reset marks the tools of its own platforms as suspect, and no others", async (t) => {
  const here = await keptDevices(t);
  const { toolchainsDir } = here.layout;
  const readyMark = async (platform: string): Promise<[ToolchainKey, string]> => {
    const key = { platform, framework: 'arduino', toolchain: 'default', selection: '', version: '2026.10.0' };
    await writeFile(join(toolchainsDir, `.ready-${platform}`), JSON.stringify({ stamp: platform, ...key }));
    return [key, platform];
  };
  await mkdir(toolchainsDir, { recursive: true });
  const marks = [await readyMark('rp2'), await readyMark('esp8266')];
  const sidecar = join(here.layout.subtree(keyOf(mine, 'kitchen')), 'storage', 'kitchen.yaml.json');
  await mkdir(join(sidecar, '..'), { recursive: true });
  await writeFile(sidecar, JSON.stringify({ storage_version: 1, name: 'kitchen', esp_platform: 'RP2040' }));
  await here.retentionService.resetPeers([mine]);
  const doubts = marks.map(([key, stamp]) => isSuspect(toolchainsDir, key, stamp));
  assert.deepEqual(await Promise.all(doubts), [true, false]);
});
