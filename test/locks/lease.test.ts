/** Covers src/locks/owner-record.ts and src/locks/presence.ts. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import fc from 'fast-check';

import { isReceiverError, type ErrorCode } from '../../src/errors.js';
import { openFence } from '../../src/locks/fence.js';
import { type Lease, acquireLease, type LeaseOptions } from '../../src/locks/lease.js';
import { hashName } from '../../src/paths/segments.js';
import { endPredecessors, readHolder, writeRecord } from '../../src/locks/owner-record.js';
import { silentLog, type Log } from '../../src/log.js';
import { identify, isAlive } from '../../src/process/identity.js';
import { spawnSession, type SessionProcess } from '../../src/process/session.js';
import { sessionMembers, type SessionIdentity } from '../../src/process/stop.js';
import { incrementsSurvive } from './attacks.js';
import { fast, freshDir, startWorkers, until, type Worker } from './helpers.js';
import { testKey } from './keys.js';
import type { LeaseAnswer, LeaseQuestion } from './lease-worker.js';

const placeOf = (locksDir: string): string =>
  join(locksDir, hashName('subtree', testKey.dashboardId, testKey.device));

const ticketsIn = async (locksDir: string): Promise<string[]> =>
  (await readdir(placeOf(locksDir))).filter((name) => name.startsWith('turn-'));

function acquire(t: TestContext, locksDir: string, options: Partial<LeaseOptions> = {}): Promise<Lease> {
  const lease = acquireLease({
    ...{ locksDir, key: testKey, reason: 'a test', log: silentLog, timing: fast },
    ...options,
  });
  lease.then(
    (held) => t.after(() => held.release()),
    () => {},
  );
  return lease;
}

const rejectsWith = (promise: Promise<unknown>, code: ErrorCode): Promise<void> =>
  assert.rejects(promise, (error) => isReceiverError(error, code));

/** A build that runs until it is ended, with a compiler in a process group of its own. */
async function startBuild(t: TestContext, lease?: Lease): Promise<SessionProcess> {
  const program = fileURLToPath(new URL('../fixtures/children/own-group.sh', import.meta.url));
  const build = await spawnSession([program], {
    ...{ cwd: '/', env: { PATH: process.env['PATH'] ?? '' }, log: silentLog },
    onOutput() {},
    ...(lease && { beforeStart: (identity) => lease.recordBuild(identity) }),
  });
  t.after(() => build.stop({ graceMs: 0 }));
  await until('the compiler', () => sessionMembers(build.identity).length === 2);
  return build;
}

/** Leaves what an owner leaves that was killed: its number and its record. */
async function plantRecord(locksDir: string, build: SessionIdentity): Promise<void> {
  const directory = placeOf(locksDir);
  await mkdir(directory, { recursive: true });
  const fence = openFence(directory).next();
  const owner = { pid: 4_000_000, startTime: 1, bootId: build.bootId };
  writeRecord(directory, { fence, owner, build, reason: 'a build of yesterday', since: 0 });
}

const ask = (worker: Worker | undefined, question: LeaseQuestion): Promise<LeaseAnswer> =>
  worker!.ask<LeaseAnswer>(question);

// Most of the time here is spent waiting for locks to go stale, so all of it runs at once.
describe('A lease', { concurrency: 5 }, () => {
  describe('among processes', { concurrency: 1 }, () => {
    let workers: readonly Worker[] = [];
    const cleanUps: (() => void)[] = [];
    before(async () => {
      workers = await startWorkers(
        { after: (act) => void cleanUps.push(act) },
        new URL('./lease-worker.ts', import.meta.url),
        2,
      );
    });
    after(() => {
      for (const cleanUp of cleanUps) cleanUp();
    });

    test('Processes get the lock in the order in which they arrived', async (t) => {
      const locksDir = await freshDir(t);
      const held = await acquire(t, locksDir, { reason: 'compile 7' });
      const entered: number[] = [];
      const turns = workers.map(async (worker, index) => {
        await until('all before', async () => (await ticketsIn(locksDir)).length === index);
        const { error, blockedBy } = await ask(worker, { do: 'acquire', locksDir, reason: `wish ${index}` });
        assert.equal(error, undefined);
        assert.deepEqual(blockedBy, ['compile 7']);
        entered.push(index);
        await ask(worker, { do: 'release' });
      });
      await until('both wait', async () => (await ticketsIn(locksDir)).length === 2);
      await held.release();
      await Promise.all(turns);
      assert.deepEqual(entered, [0, 1]);
    });

    test('A wait ends at its deadline or by its signal, and leaves no trace', async (t) => {
      const locksDir = await freshDir(t);
      const [worker] = workers;
      await ask(worker, { do: 'acquire', locksDir, reason: 'compile 7' });
      await assert.rejects(
        acquire(t, locksDir, { deadlineMs: 100 }),
        (error) => isReceiverError(error, 'LOCK_TIMEOUT') && error.facts['heldFor'] === 'compile 7',
      );
      const cancel = new AbortController();
      const cancelled = acquire(t, locksDir, { signal: cancel.signal });
      await until('a ticket', async () => (await ticketsIn(locksDir)).length === 1);
      cancel.abort();
      await rejectsWith(cancelled, 'CANCELLED');
      await rejectsWith(acquire(t, locksDir, { signal: cancel.signal }), 'CANCELLED');
      const left = await readdir(placeOf(locksDir));
      assert.deepEqual(left.toSorted(), ['fence-1', 'lock', 'owner-1.json']);
      await ask(worker, { do: 'release' });
      await acquire(t, locksDir, { deadlineMs: 1_000 });
    });

    test('A successor of an owner that stands still first ends its build; the owner then learns and starts nothing', async (t) => {
      const locksDir = await freshDir(t);
      const [worker] = workers;
      await ask(worker, { do: 'acquire', locksDir, reason: 'compile 7' });
      const command = [fileURLToPath(new URL('../fixtures/children/own-group.sh', import.meta.url))] as const;
      const { build } = await ask(worker, { do: 'build', command });
      await until('the compiler', () => sessionMembers(build!).length === 2);
      worker!.process.kill('SIGSTOP');

      const lease = await acquire(t, locksDir, { deadlineMs: 10_000 });
      assert.equal(sessionMembers(build!).length, 0, 'its build has ended before we entered');
      assert.ok(worker!.process.exitCode === null, 'the owner itself is left alone');
      await lease.confirm();

      worker!.process.kill('SIGCONT');
      assert.ok(['FENCED', 'LOCK_LOST'].includes((await ask(worker, { do: 'build', command })).error ?? ''));
      await until('the loss', async () => (await ask(worker, { do: 'state' })).lost === true);
      await ask(worker, { do: 'release' });
      await sleep(fast.updateMs * 1.5);
      assert.equal(lease.signal.aborted, false, 'the late release has left our lock alone');
      await lease.confirm();
    });

    test('The lease of a killed process is free after the stale time and two seconds at most', async (t) => {
      const locksDir = await freshDir(t);
      const [worker] = workers;
      const { fence } = await ask(worker, { do: 'acquire', locksDir, reason: 'compile 7' });
      const waiting = acquire(t, locksDir, { deadlineMs: 10_000 });
      await sleep(300);
      worker!.process.kill('SIGKILL');
      const killedAt = performance.now();
      const lease = await waiting;
      assert.ok(performance.now() - killedAt < fast.staleMs + 2_000);
      assert.ok(lease.fence > fence!);
    });
  });

  test('Leases of one key follow each other with rising numbers, and waiters learn what they wait for', async (t) => {
    const locksDir = await freshDir(t);
    const blockedBy: string[] = [];
    const first = await acquire(t, locksDir, { reason: 'compile 7' });
    const waiting = acquire(t, locksDir, {
      reason: 'compile 8',
      onBlocked: ({ reason }) => void blockedBy.push(reason),
    });
    const other = await acquire(t, locksDir, {
      key: { ...testKey, device: 'other' as typeof testKey.device },
    });
    assert.deepEqual(blockedBy, ['compile 7']);
    assert.equal(readHolder(placeOf(locksDir))?.reason, 'compile 7');
    await first.release();
    await first.release();
    const second = await waiting;
    assert.ok(second.fence > first.fence);
    assert.equal(other.fence, 1);
    await Promise.all([second.release(), other.release()]);
    const left = await readdir(placeOf(locksDir));
    assert.deepEqual(left.toSorted(), ['fence-1', 'fence-2'], 'nothing but the numbers is left');
    await rejectsWith(second.confirm(), 'STATE');
  });

  test('A lease that was taken over is lost: told by the heartbeat, and at once by every look at the disk', async (t) => {
    const locksDir = await freshDir(t);
    const told = await acquire(t, locksDir);
    await rm(join(placeOf(locksDir), 'lock'), { recursive: true });
    await until('the loss', () => told.signal.aborted);
    assert.ok(isReceiverError(told.signal.reason, 'LOCK_LOST'));
    await rejectsWith(told.recordBuild(null), 'LOCK_LOST');
    const waiting = acquire(t, locksDir);
    const early = await Promise.race([waiting, sleep(100, 'still waiting')]);
    assert.equal(early, 'still waiting', 'in this process the place is held until the release');
    await told.release();

    const lease = await waiting;
    openFence(placeOf(locksDir)).next();
    await rejectsWith(startBuild(t, lease), 'FENCED');
    assert.ok(isReceiverError(lease.signal.reason, 'LOCK_LOST'));
    await rejectsWith(
      lease.publish(() => assert.fail('it must not act')),
      'LOCK_LOST',
    );
  });

  test("What a dead owner's build has left is ended before the next lease begins", async (t) => {
    const locksDir = await freshDir(t);
    const build = await startBuild(t);
    await plantRecord(locksDir, build.identity);
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (_facts, text) => void warnings.push(text) };
    await acquire(t, locksDir, { log });
    assert.equal(sessionMembers(build.identity).length, 0);
    assert.deepEqual(warnings, ['ended a build that its dead owner had left running']);
    assert.deepEqual(
      (await readdir(placeOf(locksDir))).filter((name) => name.startsWith('owner')),
      ['owner-2.json'],
    );
  });

  test('A record whose pid was reused by another process ends nothing', async (t) => {
    const locksDir = await freshDir(t);
    const stranger = await startBuild(t);
    const { identity } = stranger;
    await plantRecord(locksDir, { ...identity, startTime: identity.startTime - 1, marker: 'another' });
    await acquire(t, locksDir);
    assert.equal(sessionMembers(identity).length, 2);
    assert.ok(isAlive(identify(process.pid)!));
  });

  test('A build that cannot be seen from here is waited for: until its record goes, or for the stale time', async (t) => {
    const directory = await freshDir(t);
    const build = { pid: 12, startTime: 34, bootId: 'another machine', marker: 'm' };
    const plant = (fence: number): void =>
      writeRecord(directory, { fence, owner: build, build, reason: 'far away', since: 0 });
    const end = (foreignMs: number): Promise<void> =>
      endPredecessors(directory, 9, { until: Infinity, foreignMs, log: silentLog });
    plant(1);
    let done = false;
    const waiting = end(60_000).then(() => (done = true));
    await sleep(150);
    assert.equal(done, false);
    await rm(join(directory, 'owner-1.json'));
    await waiting;

    plant(2);
    const begun = performance.now();
    await end(200);
    assert.ok(performance.now() - begun >= 200);
    assert.deepEqual(await readdir(directory), []);
  });

  test('Half-written and foreign records are cleared away and stop nobody', async (t) => {
    const locksDir = await freshDir(t);
    const directory = placeOf(locksDir);
    await mkdir(directory, { recursive: true });
    for (let number = 0; number < 9; number += 1) openFence(directory).next();
    const build = '{"pid":-1,"startTime":1,"bootId":"x","marker":"x"}';
    await writeFile(join(directory, 'owner-1.json'), '');
    await writeFile(join(directory, 'owner-2.json'), '{"owner":null}');
    await writeFile(join(directory, 'owner-3.json'), `{"owner":${build},"build":${build},"reason":"x"}`);
    await writeFile(join(directory, 'owner-4.json.1234'), '{"ow');
    const lease = await acquire(t, locksDir);
    assert.equal(lease.fence, 10);
    assert.deepEqual(
      (await readdir(directory)).filter((name) => name.startsWith('owner')),
      ['owner-10.json'],
    );
  });

  test('A release ends the recorded build first, so the next one never meets it', async (t) => {
    const locksDir = await freshDir(t);
    const lease = await acquire(t, locksDir);
    const build = await startBuild(t, lease);
    assert.deepEqual(readHolder(placeOf(locksDir))?.build, build.identity);
    await lease.release();
    assert.equal(sessionMembers(build.identity).length, 0);
    assert.equal(readHolder(placeOf(locksDir)), null);
  });

  test('An unusable directory throws STORAGE without a path in the message', async (t) => {
    const locksDir = join(await freshDir(t), 'file');
    await writeFile(locksDir, '');
    await assert.rejects(
      acquire(t, locksDir),
      (error) => isReceiverError(error, 'STORAGE') && !error.message.includes('/'),
    );
  });

  test("A FIFO in place of an older owner's record does not block the lease", async (t) => {
    const locksDir = await freshDir(t);
    const directory = placeOf(locksDir);
    await mkdir(directory, { recursive: true });
    openFence(directory).next();
    execFileSync('mkfifo', [join(directory, 'owner-1.json')]);
    assert.equal(readHolder(directory), null);
    const lease = await acquire(t, locksDir);
    assert.equal(lease.fence, 2);
    assert.ok(!(await readdir(directory)).includes('owner-1.json'));
  });

  test('Names of locks are short and plain, and differ when any word differs', () => {
    assert.match(hashName('subtree', testKey.dashboardId, testKey.device), /^[0-9a-f]{40}$/);
    const words = fc.array(fc.string(), { maxLength: 3 });
    fc.assert(
      fc.property(words, words, (a, b) => {
        assert.equal(hashName(...a) === hashName(...b), JSON.stringify(a) === JSON.stringify(b));
      }),
    );
    assert.notEqual(hashName('a', 'bc'), hashName('ab', 'c'));
  });

  test('No update is lost and no worker hangs while owners are killed and suspended', async (t) => {
    const attack = { everyMs: 400, longestStopMs: 4_000, attacks: 2, deadlineMs: 60_000 };
    await incrementsSurvive(t, { workers: 2, count: 30, ...attack });
  });
});
