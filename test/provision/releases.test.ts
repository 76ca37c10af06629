/** Covers src/provision/venv-place.ts. */
import assert from 'node:assert/strict';
import { mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { ReceiverError, isReceiverError } from '../../src/errors.js';
import { acquireAt } from '../../src/locks/lease.js';
import { defaultTiming as timing } from '../support/options.js';
import { silentLog as log } from '../../src/log.js';
import { openReleases, type Release, type Releases } from '../../src/provision/releases.js';
import { placeOf, removeUnused, stampUse, useOf, sweepVenvs } from '../../src/provision/venv-place.js';
import { fakePython, type FakePython } from '../esphome/fake-python.js';
import { isAlive } from '../support/is-alive.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

interface Shelf {
  readonly venvsDir: string;
  readonly locksDir: string;
  readonly releases: Releases;
  readonly python: FakePython;
  obtain(version: string): Promise<Release>;
  /** Creates an installed release; `usedAt` in milliseconds since 1970. */
  plant(version: string, usedAt: number): Promise<void>;
}

interface ShelfOptions {
  readonly maxVersions?: number;
  readonly pip?: string;
  /** Another process on the same disk. */
  readonly beside?: Shelf;
  readonly before?: (place: Pick<Shelf, 'plant' | 'venvsDir'>) => Promise<void>;
}

/** Its pip installs the requested version. */
async function shelf(
  t: Cleanups,
  { maxVersions = 3, pip = '', beside, before }: ShelfOptions = {},
): Promise<Shelf> {
  const base = await tempDir(t);
  const { venvsDir, locksDir } = beside ?? { venvsDir: join(base, 'venvs'), locksDir: join(base, 'locks') };
  for (const directory of [venvsDir, locksDir]) await mkdir(directory, { recursive: true });
  const python = await fakePython(base, { pip: `asked="$*"\n${pip}`, prints: 'Version: 2026.9.1' });
  const plant = async (version: string, usedAt: number): Promise<void> => {
    const place = placeOf({ venvsDir, locksDir, name: `esphome-${version}` });
    const bin = join(place.directory, 'venv-planted', 'bin');
    await mkdir(bin, { recursive: true });
    await writeFile(join(bin, 'esphome'), `#!/bin/sh\necho "Version: ${version}"\n`, { mode: 0o755 });
    await symlink('venv-planted', join(place.directory, 'ready'));
    await stampUse(place, usedAt);
  };
  await before?.({ plant, venvsDir });
  const releases = openReleases({
    ...{
      venvsDir,
      locksDir,
      timing,
      maxVersions,
      log,
      environment: { PATH: '/usr/bin:/bin', PYENV_ROOT: base },
    },
    pythons: async () => [python.path],
  });
  t.after(() => releases.close());
  const obtain = (version: string): Promise<Release> =>
    releases.obtain(version, { signal: new AbortController().signal, output() {} });
  return { venvsDir, locksDir, releases, python, obtain, plant };
}

const version = '2026.9.1';

test('Two callers share one installation, and one of them can abort', async (t) => {
  const { releases, python, venvsDir } = await shelf(t, { pip: 'echo halfway; sleep 0.3' });
  assert.equal(await releases.canInstall(), true);
  const [gone, stays] = [new AbortController(), new AbortController()];
  const lines: string[][] = [[], []];
  const calls = [gone, stays].map(({ signal }, index) =>
    releases.obtain(version, { signal, output: (line) => void lines[index]?.push(line) }),
  );
  await waitFor(() => lines[1]?.includes('halfway\n'));
  gone.abort(new ReceiverError('CANCELLED', 'left'));
  await assert.rejects(calls[0] as Promise<Release>, (error) => isReceiverError(error, 'CANCELLED'));
  const { command, release } = (await calls[1]) as Release;
  assert.ok(command[0].startsWith(join(venvsDir, 'esphome-2026.9.1', 'venv-')), command[0]);
  assert.match(
    lines[1]?.join('') ?? '',
    /^Installing ESPHome 2026\.9\.1; .*\nhalfway\nSuccessfully installed\n$/s,
  );
  assert.equal(lines[0]?.join(''), lines[1]?.slice(0, 2).join(''));
  assert.deepEqual(await python.deeds(), ['venv', 'pip']);
  await release();
});

test('When the last caller aborts, pip is stopped with its processes and leaves nothing', async (t) => {
  const { releases, venvsDir } = await shelf(t, { pip: 'sleep 1000 & echo "$!"; wait' });
  let sleeper = 0;
  const leave = new AbortController();
  const call = releases.obtain(version, {
    signal: leave.signal,
    output: (line) => void (sleeper = Number(line) || sleeper),
  });
  await waitFor(() => sleeper);
  leave.abort(new ReceiverError('CANCELLED', 'left'));
  await assert.rejects(call, (error) => isReceiverError(error, 'CANCELLED'));
  assert.equal(isAlive(sleeper), false);
  assert.deepEqual(await readdir(venvsDir), []);
});

test('The sweep removes the least recently used releases and the remains of a crash, and keeps those in use', async (t) => {
  const here = await shelf(t, {
    maxVersions: 1,
    async before({ plant, venvsDir }) {
      await plant('2026.9.1', 3_000);
      await plant('2026.8.2', 2_000);
      await mkdir(join(venvsDir, 'esphome-2026.7.4', 'venv-half'), { recursive: true });
    },
  });
  const left = async (): Promise<string[]> => (await readdir(here.venvsDir)).toSorted();
  await waitFor(async () => (await left()).length === 1);
  assert.deepEqual(await left(), ['esphome-2026.9.1']);

  const inUse = await here.obtain('2026.9.1');
  const again = await here.obtain('2026.9.1');
  await here.plant('2026.6.5', 1_000);
  await here.plant('2026.6.4', 500);
  await (await here.obtain('2026.6.5')).release();
  await waitFor(async () => (await left()).length === 2);
  assert.deepEqual(await left(), ['esphome-2026.6.5', 'esphome-2026.9.1']);

  await inUse.release();
  await inUse.release();
  await here.plant('2026.6.4', 500);
  await (await here.obtain('2026.6.5')).release();
  await waitFor(async () => (await left()).length === 2);
  assert.ok((await left()).includes('esphome-2026.9.1'), 'one of two was let go');
  await again.release();
  await waitFor(async () => (await left()).length === 1);
  assert.deepEqual(await left(), ['esphome-2026.9.1'], 'it is the last one that was used');
});

test('A release that another process uses stays, even if the use begins during the removal', async (t) => {
  const first = await shelf(t, { before: ({ plant }) => plant('2026.8.2', 1_000) });
  const { venvsDir, locksDir } = first;
  const held = await first.obtain('2026.8.2');
  const second = await shelf(t, { beside: first });
  await second.plant('2026.9.1', 2_000);
  await (await second.obtain('2026.9.1')).release();
  const { signal } = new AbortController();
  const sweep = async (keep: number): Promise<string[]> => {
    await sweepVenvs({ venvsDir, locksDir, timing, keep, waitMs: 0, signal, log });
    return (await readdir(venvsDir)).toSorted();
  };
  const both = ['esphome-2026.8.2', 'esphome-2026.9.1'];
  assert.deepEqual(await sweep(1), both);
  const again = await first.obtain('2026.8.2');
  assert.deepEqual(await sweep(1), both, 'what is in use is not counted, though it is the newest now');
  await Promise.all([held.release(), again.release()]);

  const place = placeOf({ venvsDir, locksDir, name: 'esphome-2026.8.2' });
  const lease = await acquireAt(place.lockDir, { reason: 'a test', timing, log });
  const mark = await useOf(place, timing);
  assert.equal(await removeUnused(place, lease, timing), false);
  assert.deepEqual((await readdir(place.directory)).toSorted(), ['ready', 'used', 'venv-planted']);
  await mark.leave();
  assert.equal(await removeUnused(place, lease, timing), true);
  await lease.release();
  assert.deepEqual(await readdir(venvsDir), ['esphome-2026.9.1']);
});

test('Without a Python nothing can be installed, but installed releases can be used', async (t) => {
  const base = await tempDir(t);
  const there = await shelf(t, { before: ({ plant }) => plant('2026.8.2', 1_000) });
  const releases = openReleases({
    ...{ venvsDir: there.venvsDir, locksDir: there.locksDir, timing, maxVersions: 3, log },
    ...{ environment: { PATH: '', PYENV_ROOT: base, HOME: base }, pythons: async () => [] },
  });
  t.after(() => releases.close());
  const caller = { signal: new AbortController().signal, output() {} };
  assert.equal(await releases.canInstall(), false);
  await (await releases.obtain('2026.8.2', caller)).release();
  await assert.rejects(
    releases.obtain('2026.8.1', caller),
    (error) => isReceiverError(error, 'PROVISION') && /found no Python 3\.12/.test(error.message),
  );
  await rm(there.python.path);
  await assert.rejects(there.obtain('2026.9.1'), (error) => isReceiverError(error, 'PROVISION'));
});
