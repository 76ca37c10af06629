/** The two proofs of the lock under attack, in a size that the caller chooses. */
import assert from 'node:assert/strict';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

import { readHolder } from '../../src/locks/owner-record.js';
import { acquireLease } from '../../src/locks/lease.js';
import { hashName } from '../../src/paths/segments.js';
import { silentLog } from '../../src/log.js';
import type { BuildTask } from './build-worker.js';
import { fast, freshDir } from './helpers.js';
import { readState, successesOf, type IncrementTask } from './increment-state.js';
import { testKey } from './keys.js';
import { runUnderAttack, type KillerOptions, type KillerReport } from './killer.js';

type Attack = Pick<KillerOptions, 'everyMs' | 'longestStopMs' | 'attacks' | 'deadlineMs'>;

/** No increment that was reported as a success is missing, nobody is stuck, and the lock is free at the end. */
export async function incrementsSurvive(
  t: TestContext,
  { workers, count, ...attack }: Attack & { readonly workers: number; readonly count: number },
): Promise<KillerReport> {
  const root = await freshDir(t);
  const [locksDir, stateDir] = [join(root, 'locks'), join(root, 'state')];
  await mkdir(stateDir);
  const tasks = Array.from({ length: workers }, (_, id): IncrementTask => ({
    id,
    locksDir,
    stateDir,
    count,
  }));
  const report = await runUnderAttack(t, {
    ...attack,
    file: 'increment-worker.ts',
    tasks,
    favourite: () => ownerOf(locksDir),
  });

  const counts = await readState(stateDir);
  for (const { id } of tasks) {
    const successes = successesOf(stateDir, id);
    assert.ok(successes >= count);
    assert.ok(
      (counts[id] ?? 0) >= successes,
      `worker ${id} has lost ${successes - (counts[id] ?? 0)} updates`,
    );
  }
  await assertFree(locksDir);
  return report;
}

/** At no time two builds ran in one directory, counted by the builds themselves. */
export async function buildsStayAlone(
  t: TestContext,
  { workers, builds, ...attack }: Attack & { readonly workers: number; readonly builds: number },
): Promise<KillerReport> {
  const root = await freshDir(t);
  const locksDir = join(root, 'locks');
  const overlaps = join(root, 'overlaps');
  const compiler = fileURLToPath(new URL('../fixtures/children/sole-compiler.sh', import.meta.url));
  const task: BuildTask = { locksDir, builds, command: [compiler, join(root, 'busy'), overlaps] };
  const tasks = Array.from({ length: workers }, () => task);
  const report = await runUnderAttack(t, {
    ...attack,
    file: 'build-worker.ts',
    tasks,
    favourite: () => ownerOf(locksDir),
  });

  assert.equal(await readFile(overlaps, 'utf8').catch(() => ''), '');
  await assertFree(locksDir);
  return report;
}

function ownerOf(locksDir: string): number | undefined {
  try {
    return readHolder(join(locksDir, hashName('subtree', testKey.dashboardId, testKey.device)))?.owner.pid;
  } catch {
    return undefined;
  }
}

async function assertFree(locksDir: string): Promise<void> {
  const deadlineMs = fast.staleMs + 2_000;
  const lease = await acquireLease({
    locksDir,
    key: testKey,
    reason: 'test',
    deadlineMs,
    log: silentLog,
    timing: fast,
  });
  await lease.release();
}
