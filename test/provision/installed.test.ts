import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { createInstalled, type InstalledEsphome } from '../../src/provision/installed.js';
import { manualClock } from '../async/manual-clock.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

const { signal } = new AbortController();

interface Host {
  readonly installed: InstalledEsphome;
  /** Sets its version, printed after `rest` in the shell; null removes it. */
  set(version: string | null, rest?: string): Promise<void>;
  wait(ms: number): void;
  /** Of the steady clock. */
  readonly start: number;
  /** The number of queries. */
  asked(): Promise<number>;
}

/** A host's ESPHome with a version that the test sets. */
async function host(t: TestContext): Promise<Host> {
  const base = await tempDir(t);
  const [program, asked] = [join(base, 'esphome'), join(base, 'asked')];
  const clock = manualClock();
  await writeFile(asked, '');
  return {
    installed: createInstalled({
      ...{ esphome: program, environment: {}, probeEnv: { PATH: '/usr/bin:/bin' }, clock },
    }),
    async set(version, rest = '') {
      if (version === null) return rm(program, { force: true });
      const script = `#!/bin/sh\necho asked >> '${asked}'\n${rest}\necho 'Version: ${version}'\n`;
      await writeFile(program, script, { mode: 0o755 });
    },
    wait: clock.advance,
    start: clock.steady(),
    asked: async () => (await readFile(asked, 'utf8')).split('\n').length - 1,
  };
}

test('A prepared query answers all callers within ten seconds', async (t) => {
  const { installed, set, wait, asked, start } = await host(t);
  await set('2026.10.0');
  for (let n = 0; n < 50; n += 1) installed.prepare();
  wait(9_999);
  const answers = await Promise.all([installed.ask(signal), installed.ask(signal)]);
  assert.deepEqual(
    answers.map(({ version, askedAt }) => [version, askedAt]),
    [
      ['2026.10.0', start],
      ['2026.10.0', start],
    ],
  );
  assert.equal(await asked(), 1);
  await set('2026.11.0');
  wait(1);
  assert.equal((await installed.ask(signal)).version, '2026.11.0', 'an old answer is not believed');
  assert.equal(await asked(), 2);
});

test('Concurrent callers share one query, and get their answers in order', async (t) => {
  const { installed, set, asked } = await host(t);
  await set('2026.10.0');
  const order: number[] = [];
  await Promise.all([0, 1, 2, 3].map((n) => installed.ask(signal).then(() => order.push(n))));
  assert.deepEqual([order, await asked()], [[0, 1, 2, 3], 1]);
});

test('Without a prepared query every caller gets a new answer', async (t) => {
  const { installed, set, asked } = await host(t);
  await set('2026.10.0');
  const first = await installed.ask(signal);
  await set('2026.11.0');
  assert.equal((await installed.ask(signal)).version, '2026.11.0');
  assert.equal(await installed.askAgain(first, signal), '2026.11.0');
  assert.equal(await asked(), 3);
});

test('A later bundle starts a new query', async (t) => {
  const { installed, set, wait } = await host(t);
  await set('2026.10.0');
  installed.prepare();
  assert.equal((await installed.ask(signal)).version, '2026.10.0');
  await set('2026.11.0');
  wait(1_000);
  installed.prepare();
  assert.equal((await installed.ask(signal)).version, '2026.11.0');
});

test('A prepared query that failed is repeated by the next caller', async (t) => {
  const { installed, set } = await host(t);
  installed.prepare();
  await assert.rejects(installed.ask(signal), { code: 'PROVISION' });
  await set('2026.10.0');
  assert.equal((await installed.ask(signal)).version, '2026.10.0');
});

test('Closing cancels a running query', async (t) => {
  const { installed, set, asked } = await host(t);
  await set('2026.10.0', 'exec sleep 60');
  const answer = installed.ask(signal);
  await waitFor(async () => (await asked()) === 1);
  installed.close();
  await assert.rejects(answer, { code: 'CANCELLED' });
});

test('A caller that aborts returns at once, and the others still get the answer', async (t) => {
  const { installed, set, asked } = await host(t);
  const gate = join(await tempDir(t), 'gate');
  await set('2026.10.0', `while [ ! -e '${gate}' ]; do sleep 0.02; done`);
  installed.prepare();
  const leaving = new AbortController();
  const [left, stays] = [installed.ask(leaving.signal), installed.ask(signal)];
  await waitFor(async () => (await asked()) === 1);
  leaving.abort();
  await assert.rejects(left, { code: 'CANCELLED' });
  await writeFile(gate, '');
  assert.equal((await stays).version, '2026.10.0');
});
