/** A build that prints without end must not stop the process that reads it. */
import assert from 'node:assert/strict';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';

import { runCompile } from '../../src/compile/compile.js';
import { silentLog } from '../../src/log.js';

test('An endless stream of empty lines does not block the event loop, and a cancel stops it', async () => {
  const controller = new AbortController();
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  let lines = 0;
  const timer = setInterval(() => {
    if (lines > 20_000) controller.abort();
  }, 10);
  const result = await runCompile({
    command: ['/usr/bin/yes', ''],
    cwd: '/',
    env: { PATH: '/usr/bin:/bin' },
    signal: controller.signal,
    leaseSignal: new AbortController().signal,
    timeoutMs: 60_000,
    onLine: () => {
      lines += 1;
      // The cost of processing a line in a real receiver.
      for (const end = performance.now() + 0.02; performance.now() < end;);
    },
    log: silentLog,
  });
  clearInterval(timer);
  delay.disable();
  assert.equal(result.cancelled, true);
  assert.ok(lines > 20_000 && lines < 200_000, `${lines} lines`);
  assert.ok(delay.max < 1e9, `the longest turn took ${delay.max / 1e6} ms`);
});
