/**
 * The leftovers of killed receivers, beside those that still run: real directories, real processes. Covers
 * src/recovery.ts.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

import { makerName, ownMaker, standingOf, temporaryName } from '../../src/disk/names.js';
import { createReceiver } from '../../src/index.js';
import { openDiskStore } from '../../src/jobs/disk-store.js';
import { startRecovery, type Recovery, type RecoveryOptions } from '../../src/recovery.js';
import type { JobStore } from '../../src/jobs/store.js';
import { presenceDirOf } from '../../src/locks/presence.js';
import { acquireLease } from '../../src/locks/lease.js';
import { silentLog } from '../../src/log.js';
import { createPaths, dashboardId, deviceFromFile, type Layout } from '../../src/paths/index.js';
import { identify, type ProcessIdentity } from '../../src/process/identity.js';
import { exampleRecord, standInEsphome } from '../../src/testing/index.js';
import { startChild } from '../support/child.js';
import { isAlive } from '../support/is-alive.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

/** The fastest that locks can be. */
const timing = { staleMs: 2_000, updateMs: 1_000 };
const me = identify(process.pid) as ProcessIdentity;
const dead = makerName({ ...me, startTime: me.startTime - 1 });

interface Place {
  readonly layout: Layout;
  readonly stateDir: string;
}

async function place(t: TestContext): Promise<Place> {
  const base = await tempDir(t);
  const { layout } = createPaths({ configDir: join(base, 'config') });
  const { uploadsDir, trashDir, jobsDir, devicesDir, ownersDir, artifactsDir, toolchainsDir, locksDir } =
    layout;
  const stateDir = join(base, 'state');
  const all = [
    uploadsDir,
    trashDir,
    jobsDir,
    devicesDir,
    ownersDir,
    artifactsDir,
    toolchainsDir,
    locksDir,
    stateDir,
  ];
  for (const directory of all) await mkdir(directory, { recursive: true });
  return { layout, stateDir };
}

async function start(t: TestContext, options: Place & Partial<RecoveryOptions>): Promise<Recovery> {
  const recovery = await startRecovery({ timing, jobIds: () => [], log: silentLog, ...options });
  t.after(() => recovery.close());
  return recovery;
}

function openStore({ jobsDir: dir, locksDir }: Layout): Promise<JobStore> {
  const presenceDir = presenceDirOf(locksDir);
  return openDiskStore({ dir, presenceDir, watchMs: timing.staleMs, log: silentLog });
}

async function plant(directory: string, names: readonly string[]): Promise<void> {
  for (const name of names) await writeFile(join(directory, name), '');
}

describe('Recovery', { concurrency: 6 }, () => {
  test('Leftovers of dead processes are removed, files of living ones stay, and no link is followed', async (t) => {
    const { layout, stateDir } = await place(t);
    const { uploadsDir, trashDir, jobsDir, devicesDir, ownersDir, artifactsDir, toolchainsDir, locksDir } =
      layout;
    const sleeper = await startChild(t, ['sleep', '600']);
    const other = makerName(identify(sleeper.pid) as ProcessIdentity);
    // Other containers: one that shows itself, one that did so before, one that never came so far.
    const [awake, silent, unseen] = [1, 2, 3].map((pid) => makerName({ pid, startTime: 5, bootId: 'x' }));
    assert.deepEqual([other, dead, awake!].map(standingOf), ['alive', 'gone', 'unknown']);
    const presenceDir = join(locksDir, 'receivers');
    await mkdir(presenceDir);
    const marks = [awake, silent, dead].map((maker) => temporaryName(maker));
    await plant(presenceDir, marks);
    let beats = 0;
    const beat = (): Promise<void> => utimes(join(presenceDir, marks[0]!), 0, (beats += 1)).catch(() => {});
    const heart = setInterval(() => void beat(), 200);
    t.after(() => clearInterval(heart));

    const canary = await tempDir(t);
    await writeFile(join(canary, 'file'), 'kept');
    const kept = [ownMaker(), other, awake].map((maker) => temporaryName(maker));
    const gone = [dead, dead, silent, unseen].map((maker) => temporaryName(maker));
    for (const directory of [uploadsDir, trashDir]) {
      for (const name of [...kept, ...gone, 'of-nobody']) {
        await mkdir(join(directory, name));
        await writeFile(join(directory, name, 'secrets.yaml'), '');
        await symlink(canary, join(directory, name, 'link'));
      }
      await symlink(canary, join(directory, temporaryName(dead)));
      await symlink(canary, join(directory, 'link'));
    }
    const half = (names: readonly string[]): string[] => names.map((name) => `.peers.json.${name}`);
    for (const directory of [jobsDir, devicesDir, ownersDir, artifactsDir, toolchainsDir, stateDir]) {
      await plant(directory, [...half(kept), ...half(gone), ...kept, ...gone]);
    }
    const [stored, running, forgotten] = [randomUUID(), randomUUID(), randomUUID()];
    await plant(jobsDir, [`${stored}.json`, `${stored}.log`, 'x.json.damaged', '.x.json.1.tmp']);
    await plant(stateDir, ['identity.key', 'peers.json']);
    for (const id of [stored, running, forgotten]) {
      await plant(artifactsDir, [`${id}.json`, `${id}.tar.gz`]);
    }

    const recovery = await start(t, { layout, stateDir, jobIds: () => [running] });
    await recovery.done;
    const names = async (directory: string): Promise<string[]> => (await readdir(directory)).toSorted();
    const mixed = [...half(kept), ...kept];
    assert.deepEqual(await names(uploadsDir), kept.toSorted());
    assert.deepEqual(await names(trashDir), kept.toSorted());
    assert.deepEqual(
      await names(jobsDir),
      [...mixed, `${stored}.json`, `${stored}.log`, 'x.json.damaged', '.x.json.1.tmp'].toSorted(),
    );
    assert.deepEqual(await names(stateDir), [...mixed, 'identity.key', 'peers.json'].toSorted());
    assert.deepEqual(await names(toolchainsDir), mixed.toSorted());
    const results = [stored, running].flatMap((id) => [`${id}.json`, `${id}.tar.gz`]);
    assert.deepEqual(await names(artifactsDir), [...mixed, ...results].toSorted());
    assert.deepEqual(await readdir(canary), ['file']);
    assert.equal(await readFile(join(canary, 'file'), 'utf8'), 'kept');
    assert.equal((await readdir(presenceDir)).length, 2, 'the one that shows itself, and we');
    await recovery.close();
    assert.deepEqual(await readdir(presenceDir), [marks[0]]);
  });

  test('An interrupted swap is repaired, unless a link leads there or a living owner is doing it', async (t) => {
    const { layout, stateDir } = await place(t);
    const peer = dashboardId('dashboard-1');
    const device = (name: string) => ({ dashboardId: peer, device: deviceFromFile(`${name}.yaml`) });
    const canary = await tempDir(t);
    await mkdir(join(canary, '.config.old'));
    for (const name of ['cut', 'done', 'held']) {
      await mkdir(join(layout.subtree(device(name)), '.config.old', 'old'), { recursive: true });
      await mkdir(join(layout.subtree(device(name)), 'build'));
    }
    await mkdir(join(layout.configTree(device('done')), 'new'), { recursive: true });
    await symlink(canary, layout.subtree(device('link')));
    await writeFile(join(layout.buildsDir, 'a-plain-file'), '');
    await mkdir(join(layout.buildsDir, 'dashboard-1', 'No device', '.config.old'), { recursive: true });
    const { locksDir } = layout;
    const wish = { locksDir, key: device('held'), reason: 'a build', timing, log: silentLog };
    const lease = await acquireLease(wish);
    t.after(() => lease.release());

    const recovery = await start(t, { layout, stateDir });
    const trees = async (name: string): Promise<string[]> => readdir(layout.subtree(device(name)));
    await waitFor(async () => !(await trees('cut')).includes('.config.old'), { what: 'the repair' });
    await waitFor(async () => !(await trees('done')).includes('.config.old'), { what: 'the repair' });
    await recovery.close();
    assert.deepEqual(await readdir(layout.configTree(device('cut'))), ['old']);
    assert.deepEqual(await readdir(layout.configTree(device('done'))), ['new']);
    assert.deepEqual((await trees('cut')).toSorted(), ['build', 'config']);
    assert.deepEqual((await trees('held')).toSorted(), ['.config.old', 'build']);
    assert.deepEqual(await readdir(canary), ['.config.old']);
    assert.deepEqual(await readdir(layout.trashDir), []);
    await lease.confirm();
  });

  test('The ticket for a lock is removed with its process, and blocks no other', async (t) => {
    const { layout, stateDir } = await place(t);
    const key = { dashboardId: dashboardId('k3Jx0Qm7vXb2Zr8T'), device: deviceFromFile('kitchen.yaml') };
    const wish = { ...{ key, locksDir: layout.locksDir, reason: 'a test' }, timing, log: silentLog };
    await (await acquireLease(wish)).release();
    const [lock] = await readdir(layout.locksDir);
    const directory = join(layout.locksDir, lock ?? '');
    const before = await readdir(directory);
    const tickets = [dead, ownMaker()].map((maker) => `turn-000000000000001.${temporaryName(maker)}`);
    await plant(directory, tickets);
    await (
      await start(t, { layout, stateDir })
    ).done;
    assert.deepEqual(new Set(await readdir(directory)), new Set([...before, tickets[1]]));

    await plant(directory, tickets.slice(0, 1));
    await rm(join(directory, tickets[1] ?? ''));
    // Kept fresh, so that its age alone would hold up everybody.
    const ticket = join(directory, tickets[0] ?? '');
    const heart = setInterval(() => void utimes(ticket, new Date(), new Date()).catch(() => {}), 100);
    t.after(() => clearInterval(heart));
    await (await acquireLease({ ...wish, deadlineMs: 10_000 })).release();
    clearInterval(heart);
    assert.deepEqual(
      (await readdir(directory)).filter((name) => name.startsWith('turn-')),
      [],
    );
  });

  test('A bundle stays as long as its job is recorded and has not ended, whoever owns it', async (t) => {
    const { layout, stateDir } = await place(t);
    const records = [
      [dead, exampleRecord({ state: 'queued' })],
      [makerName({ pid: 1, startTime: 5, bootId: 'another' }), exampleRecord({ state: 'running' })],
      [dead, exampleRecord({ state: 'failed' })],
    ] as const;
    for (const [owner, record] of records) {
      await writeFile(join(layout.jobsDir, `${record.id}.${owner}.json`), JSON.stringify(record));
    }
    const ids = records.map(([, { id }]) => id);
    const damaged = randomUUID();
    await plant(layout.jobsDir, [`${damaged}.${dead}.json`]);
    for (const id of [...ids, damaged, randomUUID()]) {
      await mkdir(join(layout.uploadsDir, id));
      await mkdir(join(layout.trashDir, id));
    }
    await (
      await start(t, { layout, stateDir })
    ).done;
    assert.deepEqual((await readdir(layout.uploadsDir)).toSorted(), ids.slice(0, 2).toSorted());
  });

  test('Live jobs of another receiver are not loaded, its ended ones are', async (t) => {
    const { layout } = await place(t);
    const sleeper = await startChild(t, ['sleep', '600']);
    const other = makerName(identify(sleeper.pid) as ProcessIdentity);
    const store = await openStore(layout);
    const records = [
      [other, exampleRecord({ createdAt: 1, state: 'running' })],
      [other, exampleRecord({ createdAt: 2, state: 'completed' })],
      [dead, exampleRecord({ createdAt: 3, state: 'running' })],
    ] as const;
    for (const [owner, record] of records) {
      await writeFile(join(layout.jobsDir, `${record.id}.${owner}.json`), JSON.stringify(record));
    }
    assert.deepEqual(
      (await store.load()).map(({ createdAt }) => createdAt),
      [2, 3],
    );
  });

  test('Nothing of a building receiver is removed, and everything is once it is killed', async (t) => {
    const worker = fileURLToPath(new URL('busy-receiver.ts', import.meta.url));
    const env = { ...process.env, TMPDIR: await tempDir(t) };
    const child = await startChild(t, [process.execPath, '--import', 'tsx', worker], { env });
    const [, pid = '', configDir = ''] = await child.printed(/busy (\d+) (.*)\n/, { deadlineMs: 30_000 });
    const { layout } = createPaths({ configDir });
    const staged = await readdir(layout.uploadsDir);
    assert.equal(staged.length, 1, 'one bundle waits, the other is installed');

    const stateDir = join(configDir, '.esphome-receiver');
    const beside = await start(t, { layout, stateDir });
    await beside.done;
    await beside.close();
    assert.deepEqual(await readdir(layout.uploadsDir), staged);
    assert.ok(isAlive(Number(pid)));
    assert.deepEqual(await (await openStore(layout)).load(), []);

    // With its watchdog gone, the build outlives its receiver.
    const builds = childrenOf(child.pid, 'stand-in');
    t.after(() => [...builds, Number(pid)].forEach(end));
    childrenOf(child.pid, 'watchdog').forEach(end);
    end(child.pid);
    await child.ended;
    assert.ok(isAlive(Number(pid)));

    const receiver = await createReceiver({ configDir, esphome: standInEsphome, lockStaleMs: 2_000 });
    t.after(() => receiver.close());
    const [ran, waits] = receiver.jobs.list();
    assert.equal(waits?.state, 'queued');
    await waitFor(async () => (await requeuedIn(layout.jobsDir)).join() === ran?.id, { what: 'the record' });
    await waitFor(() => !isAlive(Number(pid)), { what: 'the end of the build', deadlineMs: 20_000 });
    assert.deepEqual([await readdir(layout.uploadsDir), staged], [[waits?.id], [waits?.id]]);
    // It runs from the configuration that the killed one has installed.
    await waitFor(() => receiver.jobs.get(ran?.id ?? '')?.progress.phase !== 'starting', { what: 'a build' });
    for (const job of receiver.jobs.list()) receiver.jobs.cancel(job.id);
    const isOver = (): boolean => receiver.jobs.list().every(({ state }) => state === 'cancelled');
    await waitFor(isOver, { what: 'the end of the jobs', deadlineMs: 20_000 });
    await waitFor(async () => (await readdir(layout.uploadsDir)).length === 0, { what: 'no staging' });
    const locks = async (): Promise<string[]> =>
      (await readdir(layout.locksDir, { recursive: true })).filter((name) => /lock$|owner-/.test(name));
    await waitFor(async () => (await locks()).length === 0, { what: 'free locks' });
    assert.equal((await readdir(join(layout.locksDir, 'receivers'))).length, 1);
  });

  test('Closing ends the waits at once', async (t) => {
    const { layout, stateDir } = await place(t);
    const { uploadsDir } = layout;
    const name = temporaryName(makerName({ pid: 1, startTime: 5, bootId: 'another' }));
    await mkdir(join(uploadsDir, name));
    const recovery = await start(t, { layout, stateDir, timing: { staleMs: 600_000, updateMs: 1_000 } });
    await recovery.close();
    await recovery.done;
    assert.ok((await stat(join(uploadsDir, name))).isDirectory());
    assert.deepEqual(await readdir(join(layout.locksDir, 'receivers')), []);
  });
});

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

function childrenOf(pid: number, name: string): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim().split(' ');
  return children.map(Number).filter((child) => commandLine(child).includes(name));
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return ''; // It has ended since it was listed.
  }
}

/** The ids of the jobs that are on record as queued for the second time. */
async function requeuedIn(jobsDir: string): Promise<string[]> {
  const names = (await readdir(jobsDir)).filter((name) => /^[0-9a-f].*\.json$/.test(name));
  const texts = await Promise.all(
    names.map((name) => readFile(join(jobsDir, name), 'utf8').catch(() => '{}')),
  );
  const records = texts.map((text) => JSON.parse(text) as { id: string; requeued?: boolean });
  return records.filter(({ requeued }) => requeued === true).map(({ id }) => id);
}
