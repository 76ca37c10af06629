/**
 * Jobs on real files: the lease, the swap, the stand-in compiler, the proof and the packed result together. Covers
 * src/jobs/build.ts and src/jobs/open-job-service.ts.
 */
import assert from 'node:assert/strict';
import { readFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';

import { systemClock } from '../../src/async/clock.js';
import { noMarks } from '../../src/compile/output.js';
import { createInstalled } from '../../src/provision/installed.js';
import { createChoice } from '../../src/jobs/choose-esphome.js';
import type { JobRequest } from '../../src/jobs/record.js';
import { usable } from '../../src/locks/lease.js';
import { isAlive } from '../support/is-alive.js';
import { assertSucceeded, host, site, type Site } from './site.js';

async function assertNothingLeft({ paths: { layout } }: Site): Promise<void> {
  assert.deepEqual(await readdir(layout.uploadsDir), []);
  for (const name of await readdir(layout.jobsDir))
    assert.match(name, /^[0-9a-f-]{36}\.(?:[\w-]+\.json|log)$/);
}

test('A build runs in its own directory and is delivered unchanged, even if a later one changes the device', async (t) => {
  const here = await site(t);
  const first = await here.build(host('kitchen'));
  assertSucceeded(first);
  assert.deepEqual(
    [first.esphomeVersion, first.progress.phase, first.progress.percent],
    ['2026.10.0', 'done', 100],
  );
  const bytes = await buffer((await here.jobs.openArtifacts(first.id)).read());
  assert.equal(bytes.length, first.artifacts?.bytes);
  assert.deepEqual([...bytes.subarray(0, 2)], [0x1f, 0x8b]);

  const second = await here.build(host('kitchen', 'api:\n'), { peerJobId: 'job-2' });
  assertSucceeded(second);
  assert.notEqual(second.artifacts?.sha256, first.artifacts?.sha256);
  assert.deepEqual(await buffer((await here.jobs.openArtifacts(first.id)).read()), bytes);

  const again = await here.build(host('kitchen', 'api:\n# a comment\n'), { peerJobId: 'job-3' });
  assertSucceeded(again);
  assert.match(await here.jobs.readLog(again.id), /^ninja: no work to do\.$/m);
  assert.deepEqual((await readdir(here.paths.resolveDataDir(first.configuration))).toSorted(), [
    ...['.config.from', 'build', 'config', 'idedata', 'storage'],
  ]);
  await assertNothingLeft(here);
});

test('Each failure has its own message, and no message contains a host path', async (t) => {
  const here = await site(t);
  const cases: readonly (readonly [string, string, RegExp])[] = [
    [`# stand-in: exit=2\n${host('k')}`, 'config', /invalid/],
    [`# stand-in: exit=1\n${host('k')}`, 'compile', /exit code 1/],
    [`# stand-in: signal=SIGKILL\n${host('k')}`, 'resource', /out of memory/],
    [`# stand-in: elsewhere\n${host('k')}`, 'wrote_elsewhere', /^ESPHome succeeded but wrote elsewhere/],
    [`# stand-in: no-firmware\n${host('k')}`, 'wrote_elsewhere', /firmware .* is missing/],
    ['esphome:\n  name: k\n  build_path: ../../x\nhost:\n', 'wrote_elsewhere', /^nothing was started/],
  ];
  for (const [index, [text, reason, message]] of cases.entries()) {
    const job = await here.build(text, { name: `d${index}.yaml` });
    assert.deepEqual([job.state, job.failureReason], ['failed', reason], text);
    assert.match(job.errorMessage, message);
    assert.ok(!job.errorMessage.includes(here.base));
  }
  await assertNothingLeft(here);
});

test('A native nRF52 build, whose toolchain writes no firmware.bin, is delivered with what stands in for it', async (t) => {
  const here = await site(t);
  const job = await here.build('esphome:\n  name: k\nnrf52:\n');
  assertSucceeded(job);
  const tar = gunzipSync(await buffer((await here.jobs.openArtifacts(job.id)).read())).toString('latin1');
  for (const leaf of ['firmware.bin', 'zephyr/app_update.bin', 'zephyr/zephyr.hex'])
    assert.ok(tar.includes(`.pioenvs/k/${leaf}\0`), leaf);
});

test('A precheck that takes too long is reported with its own limit, not with that of a compile', async (t) => {
  const endless = {
    exitCode: null,
    signal: 'SIGTERM',
    cancelled: false,
    timedOut: true,
    silent: false,
  } as const;
  const here = await site(t, undefined, {
    precheck: async () => ({ ...endless, leaseLost: false, forced: false, marks: noMarks }),
    compileTimeoutMs: 3_600_000,
  });
  const job = await here.build('esphome:\n  name: k\n  build_path: build/k\nhost:\n');
  assert.deepEqual(
    [job.failureReason, job.errorMessage],
    [
      'resource',
      "stopped: it took longer than 2 minutes; build again, or have the build server's limit raised",
    ],
  );
});

test('A lock that cannot be used on this disk is a fault of the server, not of the configuration', async (t) => {
  const failures = [
    ['ENOSPC', 'resource', 'the disk of the build server is full; make room there and build again'],
    ['EMFILE', 'resource', 'the build server has too many open files; build again when it is less busy'],
    ['EROFS', 'internal', 'the disk of the build server is read-only; its operator must make it writable'],
    ['EIO', 'internal', 'the disk of the build server reports errors; its operator must check it'],
    [
      'EACCES',
      'internal',
      'the build server lacks permissions on its own files; its operator must correct them',
    ],
    ['ELOOP', 'internal', 'the build server cannot use its own directories: a lock cannot be used (ELOOP)'],
  ] as const;
  for (const [code, reason, message] of failures) {
    const error = Object.assign(new Error(`${code}: /some/place`), { code });
    const here = await site(t, undefined, {
      acquireLease: () => usable('/some/place', () => Promise.reject(error)),
    });
    const job = await here.build(host('kitchen'));
    assert.deepEqual([job.failureReason, job.errorMessage], [reason, message]);
  }
});

test('A wrong version, or no ESPHome, is refused so that the client can build by itself', async (t) => {
  const here = await site(t);
  const wrong = await here.build(host('kitchen'), { targetVersion: '2025.1.0' });
  assert.deepEqual([wrong.failureReason, wrong.startedAt === null], ['provision', true]);
  assert.equal(wrong.errorMessage, 'this build server has ESPHome 2026.10.0 and cannot install "2025.1.0"');
  assertSucceeded(await here.build(host('kitchen'), { targetVersion: '2026.10.0' }));
  const bare = await site(t, here.base, {
    chooseEsphome: createChoice({
      installed: createInstalled({ environment: { PATH: '' }, probeEnv: {}, clock: systemClock }),
      releases: null,
    }),
  });
  const none = await bare.build(host('kitchen'));
  assert.deepEqual(
    [none.failureReason, none.errorMessage],
    ['provision', 'this build server has no ESPHome installed'],
  );
});

test('A cancelled build leaves no process, and does not block the next one', async (t) => {
  const here = await site(t);
  const id = await here.submit(`# stand-in: ignore-term fork sleep=60000\n${host('kitchen')}`);
  const ended = here.ended(id);
  const [forked] = await Promise.all([here.printed(/forked \d+/), here.printed(/sleeping/)]);
  here.jobs.cancel(id);
  assert.equal((await ended).state, 'cancelled');
  assert.equal(isAlive(Number(/forked (\d+)/.exec(forked)?.[1])), false);
  const { configuration } = await ended;
  const mark = join(here.paths.resolveDataDir(configuration), '.unfinished');
  assert.ok((await stat(mark)).isFile(), 'a forced end is remembered');
  const next = await here.build(host('kitchen'), { peerJobId: 'job-2' });
  assertSucceeded(next);
  assert.match(
    await here.jobs.readLog(next.id),
    /^The last build of this device was killed; building from scratch\.$/m,
  );
  await assert.rejects(stat(mark), { code: 'ENOENT' });
  await assertNothingLeft(here);
});

test('A newer build of the device waits for the end of the one that it replaces, though a slot is free', async (t) => {
  const here = await site(t);
  const first = await here.submit(`# stand-in: ignore-term sleep=60000\n${host('kitchen')}`);
  const replaced = here.ended(first);
  await here.printed(/sleeping/);
  // Two compiles in one build directory would end the second with the stand-in's code 98.
  assertSucceeded(await here.build(host('kitchen', 'api:\n'), { peerJobId: 'job-2' }));
  assert.equal((await replaced).state, 'cancelled');
});

test('Devices of the same name, and peers with the same file, do not touch each other', async (t) => {
  const here = await site(t);
  const other = { dashboardId: 'another_peer' as JobRequest['dashboardId'] };
  const jobs = await Promise.all([
    here.build(host('same'), { name: 'kitchen.yaml' }),
    here.build(host('same', 'api:\n'), { name: 'kitchen.yml' }),
    here.build(host('same', 'web_server:\n'), { name: 'kitchen.yaml', ...other }),
  ]);
  for (const job of jobs) assertSucceeded(job);
  assert.equal(new Set(jobs.map(({ artifacts }) => artifacts?.sha256)).size, 3);
});

test('A clean removes what was built; the next build starts from nothing', async (t) => {
  const here = await site(t);
  const { configuration } = await here.build(host('kitchen'));
  assertSucceeded(await here.build('not even a configuration', { target: 'clean', peerJobId: 'job-2' }));
  const data = here.paths.resolveDataDir(configuration);
  assert.deepEqual((await readdir(data)).toSorted(), ['.config.from', 'config', 'storage']);
  assert.equal(await readFile(here.paths.resolveConfigPath(configuration), 'utf8'), host('kitchen'));
  assertSucceeded(await here.build(host('kitchen'), { peerJobId: 'job-3' }));
});

test('A restarted server finds the finished job and its artifacts', async (t) => {
  const before = await site(t);
  const job = await before.build(host('kitchen'));
  await before.jobs.close();
  const after = await site(t, before.base);
  assert.deepEqual(after.jobs.find(job.dashboardId, job.peerJobId), job);
  const { bytes, sha256 } = await after.jobs.openArtifacts(job.id);
  assert.deepEqual([bytes, sha256], [job.artifacts?.bytes, job.artifacts?.sha256]);
  assert.match(await after.jobs.readLog(job.id), /LINK program/);
});
