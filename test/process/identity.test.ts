import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import fc from 'fast-check';

import { identify, isAlive, parseStat, readStat } from '../../src/process/identity.js';

const stat = (comm: string, state = 'S', threads = 1): string =>
  `4711 (${comm}) ${state} 1 4712 4713 0 -1 4194304 98 0 0 0 0 0 0 0 20 0 ${threads} 0 194115 3133440 358 0\n`;

test("A program's name cannot confuse the reading of its line", () => {
  const expected = { pid: 4711, alive: true, group: 4712, session: 4713, startTime: 194115 };
  for (const comm of ['sh', 'a b', ') R 1 1 1', '(()', 'a\nb) Z 9', '']) {
    assert.deepEqual(parseStat(stat(comm)), expected, comm);
  }
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 15 }), (comm) => {
      assert.deepEqual(parseStat(stat(comm)), expected);
    }),
  );
});

test('Any other text gives null and never throws', () => {
  for (const text of [
    '',
    '12',
    '12 (sh)',
    '12 (sh) S 1 2',
    'x (sh) S 1 2 3',
    stat('sh').replace('194115', 'x'),
  ])
    assert.equal(parseStat(text), null, text);
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => void parseStat(text)));
});

test('A zombie is not alive, unless other threads of it still run', () => {
  assert.equal(parseStat(stat('sh', 'Z'))?.alive, false);
  assert.equal(parseStat(stat('sh', 'Z', 2))?.alive, true);
  assert.equal(parseStat(stat('sh', 'X'))?.alive, false);
  assert.equal(parseStat(stat('sh', 'T'))?.alive, true);
});

test('The fields match the kernel’s', () => {
  const own = readStat(process.pid);
  assert.ok(own);
  const status = readFileSync('/proc/self/status', 'latin1');
  assert.equal(own.group, Number(/^NSpgid:\s+(\d+)/m.exec(status)?.[1]));
  assert.equal(own.session, Number(/^NSsid:\s+(\d+)/m.exec(status)?.[1]));
});

test('An identity matches one process only: not a reused pid, not after a boot, not a zombie', async () => {
  const child = spawn('sleep', ['300']);
  const identity = identify(child.pid!);
  assert.ok(identity);
  assert.equal(isAlive(identity), true);
  assert.equal(isAlive({ ...identity, startTime: identity.startTime - 1 }), false);
  assert.equal(isAlive({ ...identity, bootId: 'another' }), false);
  assert.equal(isAlive({ ...identity, bootId: '' }), false);

  child.kill('SIGKILL');
  // Node reaps the child only in the next turn of the event loop.
  const end = Date.now() + 5_000;
  while (readStat(identity.pid)?.alive) assert.ok(Date.now() < end);
  assert.notEqual(readStat(identity.pid), null, 'a zombie');
  assert.equal(isAlive(identity), false);
  await once(child, 'exit');
  assert.equal(identify(identity.pid), null);
});
