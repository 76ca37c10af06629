/** Covers src/locks/guarded-fs.ts. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readdir, rmdir, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { tryFileLock, type FileLock, createAgeJudge } from '../../src/locks/file-lock.js';
import { guardedFs, type LockFs } from '../../src/locks/guarded-fs.js';
import { manualClock } from '../async/manual-clock.js';
import { fast, freshDir, startWorkers, until } from './helpers.js';
import { raceForStaleLocks } from './race.js';

const lockOf = (directory: string): string => join(directory, 'lock');

async function held(directory: string, onLost: (cause: Error) => void = () => {}): Promise<FileLock> {
  const lock = await tryFileLock(directory, { ...fast, onLost });
  assert.ok(lock);
  return lock;
}

/** What a successor does while the owner stands still. */
async function takeOver(directory: string): Promise<void> {
  await rmdir(lockOf(directory));
  await mkdir(lockOf(directory));
}

async function makeOld(path: string): Promise<void> {
  const longAgo = new Date(Date.now() - 60_000);
  await utimes(path, longAgo, longAgo);
}

function promised(fs: LockFs) {
  return {
    mkdir: promisify(fs.mkdir),
    stat: promisify(fs.stat),
    rmdir: promisify(fs.rmdir),
    touch: (path: string, time: Date) => promisify(fs.utimes)(path, time, time),
    rmdirSync: fs.rmdirSync,
  };
}

describe('The lock on disk', { concurrency: 12 }, () => {
  test('One has the lock, a second one gets null, and after the release it is free and nothing is left', async (t) => {
    const directory = await freshDir(t);
    const lock = await held(directory);
    assert.equal(await tryFileLock(directory, { ...fast, onLost() {} }), null);
    await lock.release();
    await lock.release();
    assert.deepEqual(await readdir(directory), []);
  });

  test('A lock without a heartbeat is taken over, a lock with one is not', async (t) => {
    const directory = await freshDir(t);
    await mkdir(lockOf(directory));
    await makeOld(lockOf(directory));
    const lock = await held(directory);
    await sleep(fast.staleMs + fast.updateMs);
    assert.equal(await tryFileLock(directory, { ...fast, onLost() {} }), null);
    await lock.release();
  });

  test("An owner that has been taken over is told once, and its release leaves the successor's lock alone", async (t) => {
    const directory = await freshDir(t);
    const causes: Error[] = [];
    const lock = await held(directory, (cause) => void causes.push(cause));
    await takeOver(directory);
    await until('the loss', () => causes.length === 1);
    await lock.release();
    assert.deepEqual(await readdir(directory), ['lock']);
    assert.equal(causes.length, 1);
  });

  test("A release before the loss is known leaves the successor's lock alone too, and tells nothing afterwards", async (t) => {
    const directory = await freshDir(t);
    let told = 0;
    const lock = await held(directory, () => void (told += 1));
    assert.equal(lock.isHeld(), true);
    await takeOver(directory);
    assert.equal(lock.isHeld(), false);
    await lock.release();
    assert.deepEqual(await readdir(directory), ['lock']);
    await sleep(fast.updateMs * 1.5);
    assert.equal(told, 0);
  });

  test('A stale lock that was replaced between the look and the removal is not removed', async (t) => {
    const directory = await freshDir(t);
    const path = lockOf(directory);
    await mkdir(path);
    await makeOld(path);
    const fs = promised(guardedFs(fast));
    await assert.rejects(fs.mkdir(path), { code: 'EEXIST' });
    await fs.stat(path);
    await takeOver(directory);
    await fs.rmdir(path);
    assert.deepEqual(await readdir(directory), ['lock']);
  });

  test('A lock that got its heartbeat between the look and the removal is not removed', async (t) => {
    const directory = await freshDir(t);
    const path = lockOf(directory);
    await mkdir(path);
    await makeOld(path);
    const fs = promised(guardedFs(fast));
    await fs.stat(path);
    await utimes(path, new Date(), new Date());
    await fs.rmdir(path);
    assert.deepEqual(await readdir(directory), ['lock']);
  });

  test("A late heartbeat does not touch the successor's lock", async (t) => {
    const directory = await freshDir(t);
    const path = lockOf(directory);
    const fs = promised(guardedFs(fast));
    await fs.mkdir(path);
    await takeOver(directory);
    await makeOld(path);
    const before = await stat(path);
    await assert.rejects(fs.touch(path, new Date()), { code: 'ENOENT' });
    assert.equal((await stat(path)).mtimeMs, before.mtimeMs);
    fs.rmdirSync(path);
    assert.deepEqual(await readdir(directory), ['lock'], 'nor does the clean-up at the exit of the process');
  });

  test('Two removals of a stale lock wait for each other at the guard', async (t) => {
    const directory = await freshDir(t);
    const path = lockOf(directory);
    await mkdir(path);
    await makeOld(path);
    await mkdir(`${path}.guard`);
    const fs = promised(guardedFs(fast));
    await fs.stat(path);
    let removed = false;
    const removal = fs.rmdir(path).then(() => (removed = true));
    await sleep(50);
    assert.equal(removed, false);
    await rmdir(`${path}.guard`);
    await removal;
    assert.deepEqual(await readdir(directory), []);
  });

  test('A process that exits normally leaves no lock behind', async (t) => {
    const directory = await freshDir(t);
    const module = fileURLToPath(new URL('../../src/locks/file-lock.ts', import.meta.url));
    const program = `
    const { tryFileLock } = await import(${JSON.stringify(module)});
    await tryFileLock(${JSON.stringify(directory)}, { staleMs: 2000, updateMs: 1000, onLost() {} });
    process.exit(0);`;
    const options = ['--import', 'tsx', '--input-type=module', '-e', program];
    await promisify(execFile)(process.execPath, options, {
      cwd: fileURLToPath(new URL('../..', import.meta.url)),
    });
    assert.deepEqual(await readdir(directory), []);
  });

  test('Whatever the clock says, a lock counts as old only after a heartbeat was missed, and as dead after the stale time', async (t) => {
    const directory = await freshDir(t);
    const clock = manualClock();
    const judge = createAgeJudge({ staleMs: 10_000, updateMs: 2_500, clock });
    const look = async (): Promise<'fresh' | 'as dated' | 'dead'> => {
      const seen = await stat(directory);
      const believed = judge(seen).getTime();
      if (believed === seen.mtime.getTime()) return 'as dated';
      return believed === 0 ? 'dead' : 'fresh';
    };
    await makeOld(directory);
    assert.equal(await look(), 'fresh', 'the clock may have jumped');
    clock.advance(3_700);
    assert.equal(await look(), 'fresh');
    clock.advance(100);
    assert.equal(await look(), 'as dated');
    await utimes(directory, new Date(), new Date(Date.now() + 3_600_000));
    assert.equal(await look(), 'fresh', 'a heartbeat, though from a clock that is ahead');
    clock.advance(10_000);
    assert.equal(await look(), 'as dated');
    clock.advance(1);
    assert.equal(await look(), 'dead');
  });

  test('Of eight processes that find one stale lock exactly one gets it', async (t) => {
    const workers = await startWorkers(t, new URL('./race-worker.ts', import.meta.url), 8);
    const result = await raceForStaleLocks(workers, await freshDir(t), { rounds: 25, bare: false });
    assert.deepEqual(result, { rounds: 25, withSeveralOwners: 0, withNoOwner: 0 });
  });
});
