/** Which devices a sweep removes, on real trees; each race is provoked while the lease is held. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';

import { openDeviceUsage, type DeviceRecord } from '../../src/retention/device-usage.js';
import { removeDevice, sweepDevices, type SweepDeps, type SweepResult } from '../../src/retention/sweep.js';
import { everyFailure } from '../support/failing-disk.js';
import { recordingLog } from '../support/recording-log.js';
import { realLeases } from './kill-place.js';
import { keyOf, mine, other, place, type Place } from './place.js';

const dayMs = 86_400_000;
const live = new AbortController().signal;

/** Sweeps devices not used for a day. */
async function sweep(
  here: Place,
  changes: Partial<SweepDeps & { dryRun: boolean; signal: AbortSignal }> = {},
): Promise<SweepResult> {
  const { dryRun = false, signal = live, ...deps } = changes;
  const isWanted = ({ usedAt }: DeviceRecord): boolean => here.clock.wall() - usedAt >= dayMs;
  const order = { reason: 'a test', isWanted, dryRun, signal };
  const candidates = here.usage
    .list()
    .filter(isWanted)
    .toSorted((a, b) => (a.device < b.device ? -1 : 1));
  return sweepDevices(candidates, order, { ...here, isBusy: () => false, signal, ...deps });
}

const namesOf = ({ removed }: SweepResult): string[] =>
  removed
    .map(({ item }) => (item.kind === 'device' ? `${item.dashboardId}/${item.device}` : item.kind))
    .toSorted();
const whys = ({ left }: SweepResult): string[] => left.map(({ why }) => why);

test('A device is removed with all its files a day after its last use, and a used one stays', async (t) => {
  const here = await place(t);
  for (const { dashboardId, device } of here.usage.list()) await here.usage.measure({ dashboardId, device });
  here.clock.advance(dayMs - 1);
  here.usage.touch(keyOf(mine, 'kitchen'));
  assert.deepEqual(namesOf(await sweep(here)), []);
  here.clock.advance(1);
  const result = await sweep(here);
  assert.deepEqual(namesOf(result), [`${mine}/hall`, `${other}/hall`, `${other}/kitchen`]);
  for (const { bytes } of result.removed) assert.ok(bytes > 10_000);
  assert.deepEqual(await readdir(here.layout.buildsDir), ['.receiver', mine]);
  assert.deepEqual(await here.list(mine, 'kitchen'), [
    '.config.from',
    '.unfinished',
    'build',
    'config',
    'idedata',
    'out',
    'storage',
  ]);
  assert.deepEqual(await readdir(here.layout.trashDir), []);
  await here.usage.settled();
  assert.equal((await readdir(here.layout.devicesDir)).length, 1);
});

test('Removed devices are logged, except in a dry run', async (t) => {
  const here = await place(t);
  const log = recordingLog();
  here.clock.advance(dayMs);
  await sweep(here, { log, dryRun: true });
  assert.deepEqual(log.entries, []);
  await sweep(here, { log });
  assert.deepEqual(
    log.entries,
    Array.from({ length: 4 }, () => 'info: device removed'),
  );
});

test('A dry run reports the same devices, acquires no lease and changes nothing', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  const dry = await sweep(here, { dryRun: true });
  assert.deepEqual(here.leased, []);
  assert.ok(existsSync(here.layout.subtree(keyOf(mine, 'hall'))));
  assert.deepEqual(namesOf(await sweep(here)), namesOf(dry));
});

test('A device used after it was chosen and before its lease is acquired stays', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  here.onLease = (key) => {
    if (key.device === 'hall') here.usage.touch(key);
  };
  assert.deepEqual(namesOf(await sweep(here)), [`${mine}/kitchen`, `${other}/kitchen`]);
});

test('A use recorded by another receiver counts', async (t) => {
  const here = await place(t);
  const theirs = await openDeviceUsage(here);
  here.clock.advance(dayMs);
  theirs.touch(keyOf(mine, 'hall'));
  await theirs.settled();
  assert.deepEqual(namesOf(await sweep(here)), [`${mine}/kitchen`, `${other}/hall`, `${other}/kitchen`]);
});

test('A device with a queued job or a held lease stays and is reported', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  here.held.add('hall');
  const result = await sweep(here, { isBusy: (key) => key.dashboardId === mine && key.device === 'kitchen' });
  assert.deepEqual(namesOf(result), [`${other}/kitchen`]);
  assert.deepEqual(whys(result).toSorted(), [
    'it is in use',
    'it is in use',
    'the device has a queued or running job',
  ]);
});

test('A peer directory that is a link stops no other removal, and nothing behind it is removed', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  const peerDir = dirname(here.layout.subtree(keyOf(mine, 'hall')));
  const elsewhere = join(here.base, 'elsewhere');
  await rename(peerDir, elsewhere);
  await symlink(elsewhere, peerDir);
  const result = await sweep(here);
  assert.deepEqual(namesOf(result), [`${other}/hall`, `${other}/kitchen`]);
  assert.deepEqual(whys(result), [
    'the build directory is reached through a link',
    'the build directory is reached through a link',
  ]);
  assert.deepEqual((await readdir(elsewhere)).toSorted(), ['hall', 'kitchen']);
});

test('Links inside a device are removed, and their targets stay', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  const canary = join(here.base, 'canary');
  await mkdir(canary);
  await writeFile(join(canary, 'alive'), '');
  await symlink(canary, join(here.layout.subtree(keyOf(mine, 'hall')), 'build', 'link'));
  const device = here.layout.subtree(keyOf(mine, 'kitchen'));
  await rm(device, { recursive: true });
  await symlink(canary, device);
  await sweep(here);
  assert.ok(existsSync(join(canary, 'alive')));
  assert.ok(!existsSync(device));
});

test(
  'A directory that its build has made unreadable and unwritable goes',
  { skip: process.getuid?.() === 0 && 'permissions do not hold for root' },
  async (t) => {
    const here = await place(t);
    here.clock.advance(dayMs);
    const subtree = here.layout.subtree(keyOf(mine, 'hall'));
    await chmod(join(subtree, 'build', 'k'), 0);
    await chmod(subtree, 0);
    assert.ok(namesOf(await sweep(here)).includes(`${mine}/hall`));
    assert.deepEqual(await readdir(here.layout.trashDir), []);
  },
);

test('An aborted sweep stops between two devices', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  const stopping = new AbortController();
  here.onLease = () => stopping.abort();
  const result = await sweep(here, { signal: stopping.signal });
  assert.equal(result.removed.length, 1);
});

test('When the receiver closes, files already in the trash wait for the next start', async (t) => {
  const here = await place(t);
  here.clock.advance(dayMs);
  const ending = new AbortController();
  here.onLease = () => ending.abort();
  const { signal } = ending;
  assert.equal(namesOf(await sweep(here, { signal })).length, 1);
  assert.equal((await readdir(here.layout.trashDir)).length, 1);
});

test('A device whose measurement is aborted keeps its previous sizes', async (t) => {
  const here = await place(t);
  const key = keyOf(mine, 'hall');
  await here.usage.measure(key);
  const before = here.usage.get(key);
  await writeFile(join(here.layout.subtree(key), 'build', 'more'), Buffer.alloc(1_000_000, 1));
  await here.usage.measure(key, AbortSignal.abort());
  assert.deepEqual(here.usage.get(key), before);
});

test('Whichever file system call fails, a device is there as a whole or gone, and the next removal succeeds', async (t) => {
  const tried = await everyFailure(
    async () => {
      const here = await place(t);
      const { layout } = here;
      await mkdir(layout.locksDir, { recursive: true });
      const key = keyOf(mine, 'kitchen');
      const subtree = layout.subtree(key);
      const before = await readdir(subtree, { recursive: true });
      const remove = (): Promise<boolean> =>
        removeDevice(key, { reason: 'a test' }, { ...here, underLease: realLeases(layout.locksDir) });
      return {
        directory: here.base,
        act: remove,
        async check(outcome, at) {
          const left = await readdir(subtree, { recursive: true }).catch(() => null);
          if (left !== null) assert.deepEqual(left, before, at);
          if ('error' in outcome) assert.equal((outcome.error as { code?: unknown }).code, 'STORAGE', at);
          await remove();
          assert.equal(existsSync(subtree), false, at);
          assert.deepEqual(await here.list(mine, ''), ['hall'], at);
        },
      };
    },
    { codes: ['ENOSPC', 'EIO'], lasting: [false] },
  );
  assert.ok(tried > 50, `${tried} failures`);
});
