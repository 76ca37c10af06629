/** Exclusive writes to the shared tools of a platform, for any framework or release. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { becomeInstaller, type Installer } from '../../src/toolchains/gate.js';
import { silentLog as log } from '../../src/log.js';
import { defaultTiming as timing } from '../support/options.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

type Become = (platforms: readonly string[], onBlocked?: () => void) => Promise<Installer>;

async function line(t: TestContext): Promise<Become> {
  const locksDir = await tempDir(t);
  return (platforms, onBlocked) =>
    becomeInstaller({ locksDir, timing, platforms, reason: 'test', onBlocked, log });
}

test('A platform has one installer at a time, and other platforms do not wait for it', async (t) => {
  const become = await line(t);
  const first = await become(['esp32']);
  const other = await become(['esp8266']);
  const events: string[] = [];
  const second = become(['esp32'], () => events.push('waits')).then((installer) => {
    events.push('entered');
    return installer;
  });
  await waitFor(() => events.length > 0, { what: 'the wait for esp32' });
  await other.release();
  events.push('first leaves');
  await first.release();
  await (await second).release();
  assert.deepEqual(events, ['waits', 'first leaves', 'entered']);
});

test('Those that want several platforms in any order never wait for each other in a circle', async (t) => {
  const become = await line(t);
  const wanted = [
    ['a', 'b', 'c'],
    ['c', 'b', 'a'],
    ['b', 'b', 'a'],
    ['c', 'a'],
  ];
  const holding = new Map<string, number>();
  let done = 0;
  for (const platforms of wanted) {
    void become(platforms).then(async (installer) => {
      for (const name of new Set(platforms)) holding.set(name, (holding.get(name) ?? 0) + 1);
      assert.ok(
        [...holding.values()].every((count) => count <= 1),
        'two installers of one platform',
      );
      for (const name of new Set(platforms)) holding.set(name, 0);
      await installer.release();
      return (done += 1);
    });
  }
  await waitFor(() => done === wanted.length, { deadlineMs: 20_000, what: 'the turn of each' });
});

test('A wait that ends early releases the platforms it held', async (t) => {
  const locksDir = await tempDir(t);
  const holder = await becomeInstaller({ locksDir, timing, platforms: ['b'], reason: 'test', log });
  const aborter = new AbortController();
  const wish = { locksDir, timing, platforms: ['a', 'b'], reason: 'test', log, signal: aborter.signal };
  await assert.rejects(becomeInstaller({ ...wish, onBlocked: () => aborter.abort() }), { code: 'CANCELLED' });
  await (await becomeInstaller({ locksDir, timing, platforms: ['a'], reason: 'test', log })).release();
  await holder.release();
});

test('A build is recorded for each of its platforms until it has ended', async (t) => {
  const locksDir = await tempDir(t);
  const installer = await becomeInstaller({ locksDir, timing, platforms: ['a', 'b'], reason: 'test', log });
  const recorded = async (): Promise<number> => {
    const names = await readdir(locksDir, { recursive: true, withFileTypes: true });
    const files = names.filter((name) => name.isFile());
    const texts = files.map(({ parentPath, name }) => readFile(join(parentPath, name), 'utf8'));
    return (await Promise.all(texts)).filter((text) => text.includes('987654321')).length;
  };
  await installer.recordBuild({ pid: 987_654_321, startTime: 1, bootId: '' } as never);
  assert.equal(await recorded(), 2);
  await installer.recordBuild(null);
  assert.equal(await recorded(), 0);
  await installer.release();
});
