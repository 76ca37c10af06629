/** Children of a test do not outlive it, even when its own process is killed. Covers test/support/child.ts. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { isAlive } from './is-alive.js';
import { tempDir } from './temp-dir.js';
import { waitFor } from './wait-for.js';

const support = fileURLToPath(new URL('child.ts', import.meta.url));

test('A child and its own children end when the process of their test is killed', async (t) => {
  const directory = await tempDir(t);
  const program = join(directory, 'killed.ts');
  await writeFile(
    program,
    `import { startChild } from ${JSON.stringify(support)};
void (async () => {
  const child = await startChild({ after() {} }, ['sh', '-c', 'sleep 600 & echo $! $$; wait']);
  const [, inner, outer] = await child.printed(/(\\d+) (\\d+)/, { deadlineMs: 60_000 });
  console.log('children ' + inner + ' ' + outer);
})();
setInterval(() => {}, 1_000);
`,
  );
  const parent = spawn(process.execPath, ['--import', import.meta.resolve('tsx'), program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => parent.kill('SIGKILL'));
  let output = '';
  parent.stdout.on('data', (text: Buffer) => (output += text.toString()));
  const [, ...pids] = await waitFor(() => /children (\d+) (\d+)/.exec(output), { deadlineMs: 60_000 });
  assert.ok(pids.every((pid) => isAlive(Number(pid))));
  parent.kill('SIGKILL');
  await once(parent, 'exit');
  await waitFor(() => pids.every((pid) => !isAlive(Number(pid))), { deadlineMs: 60_000, what: 'their end' });
});
