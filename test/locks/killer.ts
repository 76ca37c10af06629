/**
 * Runs workers to the end of their tasks while it kills them (and starts them anew) and lets them stand still, at
 * random moments, longer and shorter than a lock lives.
 */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export interface KillerOptions {
  /** A program of this folder that gets its task as a message and answers `done`. */
  readonly file: string;
  /** One for each worker. */
  readonly tasks: readonly object[];
  /** The pid of the worker that is the most interesting victim now: most attacks are on that one. */
  readonly favourite: () => number | undefined;
  /** Time between two attacks, in ms, on average. */
  readonly everyMs: number;
  /** Standstills last up to so long. */
  readonly longestStopMs: number;
  /** No attacks after this many. */
  readonly attacks: number;
  readonly deadlineMs: number;
}

export interface KillerReport {
  readonly kills: number;
  readonly stops: number;
  readonly ms: number;
}

/** Resolves when all tasks are done; fails when one reports an error, or at the deadline. */
export async function runUnderAttack(t: TestContext, options: KillerOptions): Promise<KillerReport> {
  const { file, tasks, favourite, everyMs, longestStopMs, attacks, deadlineMs } = options;
  const begun = Date.now();
  const program = fileURLToPath(new URL(file, import.meta.url));
  const running = new Map<number, ChildProcess>();
  const failures: string[] = [];
  let over = false;
  t.after(() => {
    over = true;
    for (const child of running.values()) child.kill('SIGKILL');
    running.clear();
  });

  const start = (index: number): void => {
    const child = fork(program, { execArgv: ['--import', 'tsx'] });
    running.set(index, child);
    let done = false;
    child.on('message', (message) => {
      done = message === 'done';
      if (!done) failures.push(JSON.stringify(message));
      running.delete(index);
      child.disconnect();
    });
    child.on('exit', (_code, signal) => {
      if (done || over) return;
      if (signal === 'SIGKILL') start(index);
      else failures.push('a worker has ended by itself');
    });
    child.send(tasks[index]!);
  };
  for (const index of tasks.keys()) start(index);

  let kills = 0;
  let stops = 0;
  const interesting = async (): Promise<ChildProcess | undefined> => {
    for (let look = 0; look < 1_000; look += 1) {
      const pid = favourite();
      for (const child of running.values()) if (child.pid === pid) return child;
      await sleep(1);
    }
    return undefined;
  };
  const attack = async (): Promise<void> => {
    while (running.size > 0 && kills + stops < attacks) {
      await sleep(everyMs * 2 * Math.random());
      const victim = Math.random() < 0.7 ? await interesting() : anyOf([...running.values()]);
      if (!victim) continue;
      if (Math.random() < 0.5) {
        kills += 1;
        victim.kill('SIGKILL');
      } else {
        stops += 1;
        victim.kill('SIGSTOP');
        setTimeout(() => victim.kill('SIGCONT'), longestStopMs * (0.2 + 0.8 * Math.random()));
      }
    }
  };
  const attacking = attack();
  while (running.size > 0) {
    assert.deepEqual(failures, []);
    assert.ok(Date.now() - begun < deadlineMs, `${running.size} workers are stuck`);
    await sleep(50);
  }
  await attacking;
  assert.deepEqual(failures, []);
  return { kills, stops, ms: Date.now() - begun };
}

function anyOf<T>(values: readonly T[]): T | undefined {
  return values[Math.floor(Math.random() * values.length)];
}
