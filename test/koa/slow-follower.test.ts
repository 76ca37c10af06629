/** A follower that stops reading, over a real socket and with a real process that prints. */
import assert from 'node:assert/strict';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { standInEsphome } from '../../src/testing/index.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { pairedClient, startReceiver, yaml } from '../support/whole.js';

/** More than both socket buffers and the backlog hold together. */
const manyLines = 24_000;
const fewLines = 1_000;

/** Prints the number of 1 KiB lines in a comment of the YAML, then runs the stand-in. */
const script = `#!/bin/sh
for last; do :; done
count=$(sed -n 's/^# flood: //p' "$last" 2>/dev/null)
[ "$count" ] && yes '${'x'.repeat(1_023)}' | head -n "$count"
exec ${standInEsphome.map((word) => `'${word}'`).join(' ')} "$@"
`;

test('A follower that stops reading delays neither the compile nor other followers, and is told how many lines it missed', async (t) => {
  const esphome = join(await tempDir(t), 'esphome');
  await writeFile(esphome, script);
  await chmod(esphome, 0o755);
  const whole = await startReceiver(t, { esphome: [esphome], slots: 2, maxOutputBytes: 67_108_864 });
  const stuck = await pairedClient(t, whole, 'stuck');
  const reading = await pairedClient(t, whole, 'reading');
  const sessions = [await stuck.openSession(), await reading.openSession()] as const;
  const shown: string[] = [];
  const flood = async (client: typeof stuck, count: number): Promise<Buffer> =>
    client.bundle('kitchen.yaml', `# flood: ${count}\n${yaml('kitchen')}`);

  let isDone = false;
  const late = sessions[0]
    .build({
      file: 'kitchen.yaml',
      bundle: await flood(stuck, manyLines),
      onState: (state) => void (state === 'running' && stuck.transports.at(-1)?.pause()),
      onOutput: (line) => void shown.push(line),
    })
    .finally(() => (isDone = true));
  await waitFor(() => whole.receiver.jobs.list()[0]?.state === 'running', {
    deadlineMs: 30_000,
    what: 'the build of who stops reading',
  });

  let read = 0;
  const other = await sessions[1].build({
    file: 'kitchen.yaml',
    bundle: await flood(reading, fewLines),
    onOutput: (line) => void (line.startsWith('xxx') && (read += 1)),
  });
  assert.deepEqual([other.status, read], ['completed', fewLines]);
  await waitFor(() => whole.receiver.jobs.list()[0]?.state === 'completed', { deadlineMs: 60_000 });
  assert.equal(isDone, false, 'the follower has not read');

  stuck.transports.at(-1)?.resume();
  assert.equal((await late).status, 'completed');
  const lines = shown.filter((line) => line.startsWith('xxx'));
  const notices = shown.flatMap((line) => /^\[(\d+) lines? (?:is|are) missing here/.exec(line) ?? []);
  assert.equal(notices.length, 2, 'one notice');
  // Lines of the stand-in can be among the missed ones.
  const missing = Number(notices[1]);
  assert.ok(missing > 0 && lines.length + missing >= manyLines && lines.length + missing < manyLines + 100);
  assert.ok(lines.length < manyLines);
});
