/** A lock on a disk that fails: what ends a lease always ends its heartbeat, and the directory becomes free again. */
import assert from 'node:assert/strict';
import { mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { test } from 'node:test';

import { isReceiverError } from '../../src/errors.js';
import { acquireLease, forgetLease, type Lease, type LeaseOptions } from '../../src/locks/lease.js';
import { isUsed, showUse } from '../../src/locks/shared-use.js';
import { silentLog } from '../../src/log.js';
import { hashName } from '../../src/paths/segments.js';
import { everyFailure, type Attempt } from '../support/failing-disk.js';
import { recordingLog } from '../support/recording-log.js';
import { fillVolume, remount, smallVolume } from '../support/small-volume.js';
import { tempDir } from '../support/temp-dir.js';
import { fast, until } from './helpers.js';
import { testKey } from './keys.js';

const { getLocks } = createRequire(import.meta.url)('proper-lockfile/lib/lockfile.js') as {
  getLocks(): Readonly<Record<string, unknown>>;
};

const options = (locksDir: string, more: Partial<LeaseOptions> = {}): LeaseOptions => ({
  ...{ locksDir, key: testKey, reason: 'a test', log: silentLog, timing: fast, deadlineMs: 60_000 },
  ...more,
});

const placeOf = (locksDir: string): string =>
  join(locksDir, hashName('subtree', testKey.dashboardId, testKey.device));

/** A later owner gets the lock, as long as the time of a crashed one, and leaves nothing. */
async function assertFree(locksDir: string, at: string): Promise<Lease> {
  const lease = await acquireLease(options(locksDir));
  await lease.confirm();
  await lease.release();
  const left = (await readdir(placeOf(locksDir))).filter((name) => !name.startsWith('fence-'));
  assert.deepEqual(left, [], at);
  return lease;
}

function assertSilent(locksDir: string, at: string): void {
  assert.ok(!Object.keys(getLocks()).includes(placeOf(locksDir)), `${at}: a heartbeat goes on`);
}

/**
 * As `everyFailure`, but the checks run side by side, while the next attempts do: most of their time is spent waiting until
 * a lock is stale.
 */
async function everyFailureAtOnce<Result>(
  prepare: () => Promise<Attempt<Result>>,
  ways?: Parameters<typeof everyFailure>[1],
): Promise<number> {
  const checks: Promise<void>[] = [];
  const tried = await everyFailure(async () => {
    const attempt = await prepare();
    return {
      ...attempt,
      async check(...outcome: Parameters<typeof attempt.check>) {
        const check = attempt.check(...outcome);
        check.catch(() => {});
        checks.push(check);
      },
    };
  }, ways);
  await Promise.all(checks);
  return tried;
}

const gone = { pid: 4_000_000, startTime: 1, bootId: 'another boot', marker: 'x' };

test('Whichever file system call fails in a release, the heartbeat ends and the lock becomes free', async (t) => {
  const tried = await everyFailureAtOnce(async () => {
    const locksDir = await tempDir(t);
    const lease = await acquireLease(options(locksDir));
    await lease.recordBuild(gone);
    return {
      directory: locksDir,
      act: () => lease.release(),
      async check(outcome, at) {
        assert.ok('result' in outcome, at);
        assertSilent(locksDir, at);
        const next = await assertFree(locksDir, at);
        assert.ok(next.fence > lease.fence, at);
      },
    };
  });
  assert.ok(tried > 10, `${tried} failures`);
});

test('Whichever file system call fails in an acquisition, the error is typed, nothing beats, and the next one succeeds', async (t) => {
  const tried = await everyFailureAtOnce(
    async () => {
      const locksDir = await tempDir(t);
      return {
        directory: locksDir,
        act: () => acquireLease(options(locksDir, { deadlineMs: 50 })),
        async check(outcome, at) {
          if ('error' in outcome) {
            const isTyped =
              isReceiverError(outcome.error, 'STORAGE') || isReceiverError(outcome.error, 'LOCK_TIMEOUT');
            assert.ok(isTyped, `${at}: ${String(outcome.error)}`);
          } else await outcome.result.release();
          assertSilent(locksDir, at);
          await assertFree(locksDir, at);
        },
      };
    },
    { codes: ['ENOSPC', 'EROFS', 'EIO', 'EMFILE'] },
  );
  assert.ok(tried > 30, `${tried} failures`);
});

test('Whichever file system call fails, a user that leaves stops counting', async (t) => {
  const tried = await everyFailureAtOnce(async () => {
    const locksDir = await tempDir(t);
    const shared = { locksDir, timing: fast, reason: 'a test', log: silentLog };
    const user = await showUse(['idf', 'ccache'], shared);
    return {
      directory: locksDir,
      act: () => user.leave(),
      async check(_outcome, at) {
        for (const name of ['idf', 'ccache'])
          await until(at, async () => !(await isUsed(name, shared)), 60_000);
      },
    };
  });
  assert.ok(tried > 8, `${tried} failures`);
});

test('Whichever file system call fails, a lock that is forgotten stays usable, with higher numbers', async (t) => {
  const tried = await everyFailureAtOnce(
    async () => {
      const locksDir = await tempDir(t);
      const before = await acquireLease(options(locksDir));
      await before.release();
      return {
        directory: locksDir,
        act: () => forgetLease(options(locksDir)),
        async check(outcome, at) {
          assert.ok('result' in outcome, at);
          assertSilent(locksDir, at);
          const next = await assertFree(locksDir, at);
          assert.ok(next.fence > before.fence, at);
        },
      };
    },
    { codes: ['ENOSPC', 'EROFS', 'EIO'] },
  );
  assert.ok(tried > 30, `${tried} failures`);
});

test('A release on a volume that is read-only for a moment frees the directory as soon as it is writable', async (t) => {
  const volume = await smallVolume(t, { megabytes: 4 });
  if (volume === null) return;
  const log = recordingLog();
  const lease = await acquireLease(options(volume, { log, timing: { staleMs: 60_000, updateMs: 1_000 } }));
  remount(volume, 'ro');
  await lease.release();
  const lock = join(placeOf(volume), 'lock');
  const { mtimeMs } = await stat(lock);
  remount(volume, 'rw');
  await until(
    'the directory is free',
    async () => !(await readdir(placeOf(volume))).includes('lock'),
    30_000,
  );
  assert.ok(Date.now() - mtimeMs < 60_000, 'long before the lock is stale');
  assert.deepEqual(log.entries, [
    'warn: owner record of a lock not removed, its next owner removes it',
    'warn: lock release failed, it expires when stale',
  ]);
  await assertFree(volume, 'afterwards');
});

test('A waiter on a full volume keeps waiting without a ticket, and gets the lock', async (t) => {
  const volume = await smallVolume(t, { megabytes: 4 });
  if (volume === null) return;
  const lease = await acquireLease(options(volume));
  const waiting = acquireLease({ ...options(volume), key: testKey });
  void waiting.catch(() => {});
  await fillVolume(volume);
  await lease.release();
  await (await waiting).release();
});

test('A lock of a crashed process into which another program has written is taken over', async (t) => {
  const locksDir = await tempDir(t);
  const place = placeOf(locksDir);
  for (const name of ['lock', 'lock.guard']) {
    await mkdir(join(place, name, '@eaDir'), { recursive: true });
    await writeFile(join(place, name, '.DS_Store'), 'x');
  }
  await assertFree(locksDir, 'with foreign files');
});

test('A file that another program writes into a lock costs its holder nothing', async (t) => {
  const locksDir = await tempDir(t);
  const lease = await acquireLease(options(locksDir));
  const lock = join(placeOf(locksDir), 'lock');
  await writeFile(join(lock, '.DS_Store'), 'x');
  const { birthtimeMs, mtimeMs } = await stat(lock);
  if (birthtimeMs === 0 || birthtimeMs === mtimeMs) return t.skip('this file system has no times of birth');
  await until('two heartbeats', async () => (await stat(lock)).mtimeMs > mtimeMs + fast.updateMs);
  assert.equal(lease.signal.aborted, false);
  await lease.confirm();
  await lease.release();
  await assertFree(locksDir, 'afterwards');
});

test('The lock of a device that is gone is removed, unless somebody holds it', async (t) => {
  const locksDir = await tempDir(t);
  const first = await acquireLease(options(locksDir));
  await forgetLease(options(locksDir));
  await first.confirm();
  await first.release();
  await forgetLease(options(locksDir));
  assert.deepEqual(
    (await readdir(locksDir)).filter((name) => !name.startsWith('fence-')),
    [],
  );
  const next = await acquireLease(options(locksDir));
  assert.ok(next.fence > first.fence);
  const waiting = acquireLease(options(locksDir));
  await forgetLease(options(locksDir));
  await next.confirm();
  await next.release();
  const last = await waiting;
  await last.confirm();
  await last.release();
  for (let round = 0; round < 5; round += 1) {
    await forgetLease(options(locksDir));
    await assertFree(locksDir, `round ${round}`);
  }
  await forgetLease(options(locksDir));
  assert.equal((await readdir(locksDir)).length, 1, 'only the newest number stays');
});
