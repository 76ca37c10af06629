/** What the tests of the locks share: fresh directories, conditions with a deadline, and workers with questions. */
import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The fastest that the library can do. */
export const fast = { staleMs: 2_000, updateMs: 1_000 };

export async function freshDir(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'koa-esphome-receiver-'));
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  return directory;
}

export async function until(
  what: string,
  look: () => boolean | Promise<boolean>,
  ms = 10_000,
): Promise<void> {
  const end = Date.now() + ms;
  while (!(await look())) {
    assert.ok(Date.now() < end, `in ${ms} ms never: ${what}`);
    await sleep(10);
  }
}

export interface Worker {
  readonly process: ChildProcess;
  /** Sends a question and waits for its answer. One question at a time. */
  ask<T>(question: object): Promise<T>;
}

/** Starts programs which answer each message with one message. */
export async function startWorkers(
  t: { after(cleanUp: () => void): void },
  program: URL,
  count: number,
): Promise<readonly Worker[]> {
  const workers = Array.from({ length: count }, () => {
    const child = fork(fileURLToPath(program), { execArgv: ['--import', 'tsx'] });
    t.after(() => child.kill('SIGKILL'));
    return {
      process: child,
      async ask<T>(question: object): Promise<T> {
        const answer = once(child, 'message');
        child.send(question);
        return ((await answer) as [T])[0];
      },
    };
  });
  await Promise.all(workers.map((worker) => worker.ask({ do: 'hello' })));
  return workers;
}
