/** Children of uncomfortable size, and receivers that die at any moment. OUTPUT_MIB, KILLED_RECEIVERS set the sizes. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { silentLog } from '../../src/log.js';
import { createLineSplitter } from '../../src/process/lines.js';
import { spawnSession } from '../../src/process/session.js';

const size = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);
const program = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const child = (name: string): string => program(`../fixtures/children/${name}`);
const env = { PATH: process.env['PATH'] ?? '' };

test('200 MiB of output arrive to the byte as lines, in seconds and in little memory', async (t) => {
  const mib = size('OUTPUT_MIB', 200);
  let bytes = 0;
  let lines = 0;
  let peak = 0;
  const splitter = createLineSplitter({
    maxLineBytes: 8_192,
    onLine(line) {
      bytes += line.length;
      lines += 1;
    },
  });
  const before = process.memoryUsage.rss();
  const begun = performance.now();
  const session = await spawnSession([child('prints-much.sh'), String(mib)], {
    ...{ cwd: '/', env, log: silentLog },
    onOutput(chunk) {
      splitter.push(chunk);
      peak = Math.max(peak, process.memoryUsage.rss());
    },
  });
  assert.equal((await session.exited).code, 0);
  splitter.end();
  const seconds = (performance.now() - begun) / 1000;
  t.diagnostic(
    `${lines} lines in ${seconds.toFixed(2)} s, ${((peak - before) / 2 ** 20).toFixed(0)} MiB more`,
  );
  assert.equal(bytes, mib << 20);
  assert.ok(peak - before < 150 * 2 ** 20);
});

test('One endless line takes no memory, and its program can be stopped', async (t) => {
  let pieces = 0;
  let longest = 0;
  const splitter = createLineSplitter({
    maxLineBytes: 8_192,
    onLine(line) {
      pieces += 1;
      longest = Math.max(longest, line.length);
    },
  });
  const session = await spawnSession([child('endless-line.sh')], {
    ...{ cwd: '/', env, log: silentLog },
    onOutput: (chunk) => splitter.push(chunk),
  });
  await sleep(3_000);
  assert.deepEqual(await session.stop({ graceMs: 1_000 }), { forced: false, survivors: 0 });
  t.diagnostic(`${pieces} pieces`);
  assert.ok(pieces > 1_000);
  assert.equal(longest, 8_192);
});

test('Whenever a receiver is killed, before, while and after its build begins, nothing of the build is left', async () => {
  for (let round = 0; round < size('KILLED_RECEIVERS', 25); round += 1) {
    const token = `TEST_TOKEN=${randomUUID()}`;
    const receiver = fork(program('../process/receiver.ts'), [child('own-group.sh')], {
      execArgv: ['--import', 'tsx'],
      env: { ...process.env, TEST_TOKEN: token.slice('TEST_TOKEN='.length) },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const others = (): number[] => carrying(token).filter((pid) => pid !== receiver.pid);
    const end = Date.now() + 20_000;
    while (others().length === 0) {
      assert.ok(Date.now() < end, 'the build never began');
      await sleep(2);
    }
    await sleep(Math.random() < 0.5 ? 0 : Math.random() * 40);
    receiver.kill('SIGKILL');
    await once(receiver, 'exit');
    const killed = Date.now();
    while (others().length > 0) {
      assert.ok(Date.now() - killed < 5_000, 'a part of the build is left');
      await sleep(10);
    }
  }
});

function carrying(token: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/environ`, 'latin1').includes(token);
      } catch {
        return false;
      }
    })
    .map(Number);
}
