/**
 * The locks, for minutes. Sizes can be set in the environment: RACE_PROCESSES, RACE_ROUNDS, INCREMENT_WORKERS,
 * INCREMENTS, INCREMENT_ATTACKS, BUILD_WORKERS, BUILDS, BUILD_ATTACKS.
 */
import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { tryFileLock } from '../../src/locks/file-lock.js';
import { buildsStayAlone, incrementsSurvive } from '../locks/attacks.js';
import { freshDir, startWorkers } from '../locks/helpers.js';
import { raceForStaleLocks } from '../locks/race.js';

const size = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);

test('Of 32 processes that find one stale lock exactly one gets it, where the bare library lets in several', async (t) => {
  const workers = await startWorkers(
    t,
    new URL('../locks/race-worker.ts', import.meta.url),
    size('RACE_PROCESSES', 32),
  );
  const rounds = size('RACE_ROUNDS', 1_500);
  const bare = await raceForStaleLocks(workers, await freshDir(t), {
    rounds: Math.ceil(rounds / 3),
    bare: true,
  });
  const ours = await raceForStaleLocks(workers, await freshDir(t), { rounds, bare: false });
  t.diagnostic(`bare ${JSON.stringify(bare)}, ours ${JSON.stringify(ours)}`);
  assert.ok(bare.withSeveralOwners > 0, 'the race is too tame to prove anything');
  assert.deepEqual(ours, { rounds, withSeveralOwners: 0, withNoOwner: 0 });
});

test('No update is lost and nobody is stuck while owners are killed and stand still', async (t) => {
  const report = await incrementsSurvive(t, {
    ...{ workers: size('INCREMENT_WORKERS', 16), count: size('INCREMENTS', 200) },
    ...{ attacks: size('INCREMENT_ATTACKS', 30), everyMs: 1_500, longestStopMs: 6_000, deadlineMs: 400_000 },
  });
  t.diagnostic(JSON.stringify(report));
});

test('Two builds never run in one directory while receivers are killed and stand still', async (t) => {
  const report = await buildsStayAlone(t, {
    ...{ workers: size('BUILD_WORKERS', 4), builds: size('BUILDS', 4) },
    ...{ attacks: size('BUILD_ATTACKS', 30), everyMs: 1_500, longestStopMs: 10_000, deadlineMs: 400_000 },
  });
  t.diagnostic(JSON.stringify(report));
});

test('A guard that a crash has left delays the next takeover by its five seconds, and is cleared away', async (t) => {
  const directory = await freshDir(t);
  const options = { staleMs: 2_000, updateMs: 1_000, onLost() {}, ageOf: () => new Date(0) };
  await mkdir(join(directory, 'lock'));
  await mkdir(join(directory, 'lock.guard'));
  const begun = performance.now();
  const lock = await tryFileLock(directory, options);
  const ms = performance.now() - begun;
  assert.ok(lock);
  assert.ok(ms > 4_900 && ms < 6_500, `${ms} ms`);
  await lock.release();
  assert.deepEqual(await readdir(directory), []);
});
