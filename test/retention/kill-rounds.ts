/**
 * Kills receivers while they sweep and reset, with builds running in another process on the same disk. No build may lose
 * a file, and a clean start must remove the leftovers of the kills.
 */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { startRecovery } from '../../src/recovery.js';
import { devicesOnDisk } from '../../src/jobs/devices-on-disk.js';
import { silentLog as log } from '../../src/log.js';
import { readRecords } from '../../src/retention/device-record.js';
import { fast as timing } from '../locks/helpers.js';
import type { Chance } from '../support/killed/chance.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import type { BuildsReport } from './build-worker.js';
import { impatientKeeper, pathsIn } from './kill-place.js';
import { keyOf, mine } from './place.js';

/** Maximum delay of a kill after a sweeper has begun, or after it has moved something to the trash. */
const spreadMs = { any: 1_500, trash: 15 };
const trashDeadlineMs = 5_000;
/** Devices without builds, so that each sweeper can remove something without waiting for a lease. */
const idle = ['cellar', 'garage', 'shed'].map((name) => keyOf(mine, name));
const idleFiles = 150;
/** Sweepers started in advance: starting one takes longer than its round. */
const ahead = 2;

export interface KillReport extends BuildsReport {
  readonly kills: number;
  /** Kills in the middle of a removal. */
  readonly killsWithTrash: number;
}

export async function sweepersAreKilled(t: Cleanups, chance: Chance, rounds: number): Promise<KillReport> {
  const base = await tempDir(t);
  const { layout } = pathsIn(base);
  const { devicesDir, trashDir } = layout;
  const stateDir = join(base, 'state');
  for (const directory of [...layout.ownDirectories, stateDir]) await mkdir(directory, { recursive: true });

  function start(file: string): ChildProcess {
    const program = fileURLToPath(new URL(file, import.meta.url));
    const child = fork(program, [base], { execArgv: ['--import', 'tsx'] });
    t.after(() => void child.kill('SIGKILL'));
    return child;
  }

  const builder = start('build-worker.ts');
  assert.equal(await firstOf(builder), 'ready');
  const waiting: [ChildProcess, Promise<unknown>][] = [];
  const prepare = (): void => {
    const child = start('sweep-worker.ts');
    waiting.push([child, firstOf(child)]);
  };
  for (let n = 0; n < Math.min(ahead, rounds); n += 1) prepare();
  async function plantIdle(): Promise<void> {
    for (const key of idle) {
      const build = join(layout.subtree(key), 'build');
      await mkdir(build, { recursive: true });
      for (let n = 0; n < idleFiles; n += 1) await writeFile(join(build, `file-${n}`), 'object');
    }
  }

  /** Half of the kills come at a random moment, half during a removal. */
  async function momentOfKill(): Promise<null> {
    const isAimed = chance.below(2) === 0;
    const isThere = async (): Promise<boolean> => (await readdir(trashDir)).length > trash;
    if (isAimed) await waitFor(isThere, { deadlineMs: trashDeadlineMs }).catch(() => {});
    await pause(chance.below(isAimed ? spreadMs.trash : spreadMs.any));
    return null;
  }

  let trash = 0;
  let roundsWithTrash = 0;
  for (let round = 0; round < rounds; round += 1) {
    const [sweeper, up] = waiting.shift() as [ChildProcess, Promise<unknown>];
    if (round + ahead < rounds) prepare();
    assert.equal(await up, 'up');
    await plantIdle();
    const ready = firstOf(sweeper);
    sweeper.send('go');
    assert.equal(await ready, 'ready');
    const complaint = once(sweeper, 'message').then(([message]) => message as string);
    const said = await Promise.race([complaint, momentOfKill()]);
    assert.equal(said, null, 'a sweep rejects');
    const gone = once(sweeper, 'exit');
    sweeper.kill('SIGKILL');
    await gone;
    const { length } = await readdir(trashDir);
    if (length > trash) roundsWithTrash += 1;
    trash = length;
  }
  const report = firstOf(builder) as Promise<BuildsReport>;
  builder.send('end');
  const { builds, losses } = await report;
  assert.deepEqual(losses, [], 'no build loses a file');

  // A clean start.
  const retentionService = await impatientKeeper(base);
  const recovery = await startRecovery({ layout, stateDir, timing, jobIds: () => [], log });
  await recovery.done;
  assert.deepEqual(await readdir(trashDir), [], 'no trash is forgotten');
  const dry = await retentionService.retention.sweep({ dryRun: true });
  const { keys } = await devicesOnDisk(layout.buildsDir);
  assert.equal(dry.removed.length, keys.length);
  await retentionService.close();
  const records = (await readRecords(devicesDir)).map((record) => layout.subtree(record));
  assert.deepEqual(records.toSorted(), keys.map(layout.subtree).toSorted(), 'no record without a directory');
  for (const name of await readdir(devicesDir)) assert.match(name, /^[0-9a-f]{40}\.json$/);
  await recovery.close();
  return { builds, losses, kills: rounds, killsWithTrash: roundsWithTrash };
}

async function firstOf(child: ChildProcess): Promise<unknown> {
  const ended = once(child, 'exit').then(() => 'it has ended by itself');
  return Promise.race([once(child, 'message').then(([message]) => message as unknown), ended]);
}
