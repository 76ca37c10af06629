/**
 * A job's output: what of it is kept and told when there is much, and what errors of our own disk mean. Covers
 * src/jobs/outcome.ts.
 */
import assert from 'node:assert/strict';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import fc from 'fast-check';

import { diskFullMessage, ReceiverError } from '../../src/errors.js';
import { openJobLog } from '../../src/jobs/log.js';
import { outcomeOf } from '../../src/jobs/outcome.js';
import { silentLog as log } from '../../src/log.js';
import { tempDir } from '../support/temp-dir.js';

let directory = '';
let cleanUp: () => Promise<void> | void;
before(async () => {
  directory = await tempDir({ after: (cleanup) => (cleanUp = cleanup) });
});
after(() => cleanUp());

let logs = 0;

async function written(
  lines: readonly string[],
  maxOutputBytes: number,
): Promise<{ told: string[]; kept: string }> {
  logs += 1;
  const file = join(directory, `${logs}.log`);
  const told: string[] = [];
  const output = openJobLog(file, { maxOutputBytes, onLine: (line) => void told.push(line), log });
  for (const line of lines) output.write(line);
  await output.close();
  return { told, kept: await readFile(file, 'utf8') };
}

const notice = '[output limit reached: only the last lines follow, at the end]\n';

test('Output within the limit is kept and passed on unchanged', async () => {
  const lines = ['INFO one\n', 'two\r', 'drei\r\n', '', 'the rest'];
  assert.deepEqual(await written(lines, 65_536), { told: lines, kept: lines.join('') });
});

test('The beginning and the end of a long output are kept and passed on, with one notice and the number of omitted lines', async () => {
  const lines = Array.from({ length: 20_000 }, (_, n) => `line ${n}\n`);
  const { told, kept } = await written(lines, 65_536);
  const cut = told.indexOf(notice);
  const [head, tail] = [told.slice(0, cut), told.slice(cut + 1)];
  assert.deepEqual(head, lines.slice(0, cut));
  assert.deepEqual(tail, lines.slice(-tail.length));
  const dropped = 20_000 - head.length - tail.length;
  const middle = `[${dropped} lines omitted: the output exceeded its limit]\n`;
  assert.equal(kept, head.join('') + middle + tail.join(''));
  assert.ok(head.join('').length > 48_000, 'most of the limit is for the beginning');
  assert.ok(tail.length > 100);
});

test('Output slightly over its limit loses nothing', async () => {
  const lines = Array.from({ length: 50 }, () => `${'x'.repeat(999)}\n`);
  const { told, kept } = await written(lines, 65_536);
  assert.equal(kept, lines.join(''));
  assert.deepEqual(
    told.filter((line) => line !== notice),
    lines,
  );
});

test('A notice is on a line of its own, even after an unterminated line that was cut into pieces', async () => {
  const { told, kept } = await written(
    Array.from({ length: 30 }, () => 'x'.repeat(8_192)),
    65_536,
  );
  assert.ok(told.includes(`\n${notice}`));
  assert.match(kept, /x\n\[\d+ lines omitted: the output exceeded its limit\]\nx/);
});

test('For any output the log stays within its limit, and beginning, omitted lines and end add up', async () => {
  const line = fc
    .tuple(fc.constantFrom('', 'a', 'é', '🔥', 'error: '), fc.nat(140), fc.constantFrom('\n', '\r', ''))
    .map(([text, times, end]) => text.repeat(times) + end);
  const lines = fc
    .array(line, { minLength: 1, maxLength: 250 })
    .filter((all) => all.every((text) => text !== ''));
  await fc.assert(
    fc.asyncProperty(lines, fc.integer({ min: 8_192, max: 65_536 }), async (all, maxOutputBytes) => {
      const { told, kept } = await written(all, maxOutputBytes);
      const shown = told.filter((text) => !text.endsWith(notice));
      const dropped = Number(/^\[(\d+) lines omitted/m.exec(kept)?.[1] ?? 0);
      assert.equal(shown.length + dropped, all.length);
      assert.ok(told.length - shown.length <= 1, 'more than one notice');
      assert.ok(Buffer.byteLength(kept) <= maxOutputBytes + 80);
      if (dropped === 0) assert.equal(kept, all.join(''));
    }),
    { numRuns: 150 },
  );
});

test('No file is opened before the first line, which replaces the log of an earlier attempt', async () => {
  const file = join(directory, 'again.log');
  await writeFile(file, 'an earlier attempt, which was longer');
  const silent = openJobLog(file, { maxOutputBytes: 65_536, onLine() {}, log });
  await silent.close();
  assert.equal(await readFile(file, 'utf8'), 'an earlier attempt, which was longer');
  const output = openJobLog(file, { maxOutputBytes: 65_536, onLine() {}, log });
  output.write('new\n');
  await output.close();
  assert.equal(await readFile(file, 'utf8'), 'new\n');
  const waiting = openJobLog(join(directory, 'waits.log'), { maxOutputBytes: 65_536, onLine() {}, log });
  await waiting.close();
  await assert.rejects(stat(join(directory, 'waits.log')), { code: 'ENOENT' });
});

test('A disk that is full stops the log and nothing else', { skip: !(await canBeFull()) }, async () => {
  const told: string[] = [];
  const output = openJobLog('/dev/full', {
    maxOutputBytes: 65_536,
    onLine: (line) => void told.push(line),
    log,
  });
  for (let n = 0; n < 100; n += 1) output.write(`line ${n}\n`);
  await output.close();
  assert.equal(told.length, 100);
});

test('A full disk is reported as such, however deep in the causes of other errors', () => {
  const { signal } = new AbortController();
  const full = Object.assign(new Error('write /some/place'), { code: 'ENOSPC' });
  const storage = new ReceiverError('STORAGE', 'a file cannot be written', {}, { cause: full });
  const lost = new ReceiverError('LOCK_LOST', 'the lock was lost', {}, { cause: storage });
  for (const error of [full, storage, lost, Object.assign(new Error(), { code: 'EDQUOT' })]) {
    const expected = { to: 'failed', reason: 'resource', message: diskFullMessage };
    assert.deepEqual(outcomeOf(error, { id: '1', signal }, log), expected);
  }
  const other = new ReceiverError('LOCK_LOST', 'the lock was lost', {}, { cause: new Error('no code') });
  assert.deepEqual(outcomeOf(other, { id: '1', signal }, log), {
    to: 'failed',
    reason: 'lock_lost',
    message: 'the lock was lost',
  });
});

async function canBeFull(): Promise<boolean> {
  return stat('/dev/full').then(
    (facts) => facts.isCharacterDevice(),
    () => false,
  );
}
