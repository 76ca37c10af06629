/** Jobs that ask for another ESPHome than the host's: chosen, installed and let go, on real files. */
import assert from 'node:assert/strict';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import { systemClock } from '../../src/async/clock.js';
import { ReceiverError, isReceiverError } from '../../src/errors.js';
import { openReleases } from '../../src/provision/releases.js';
import { createInstalled } from '../../src/provision/installed.js';
import { createChoice, type ChooseEsphome } from '../../src/jobs/choose-esphome.js';
import { waitingText } from '../../src/jobs/waiting.js';
import { stateFrame } from '../../src/server/outbox.js';
import { defaultTiming as timing } from '../support/options.js';
import { readyTools } from '../../src/toolchains/gate.js';
import { silentLog as log } from '../../src/log.js';
import { createPaths, dashboardId } from '../../src/paths/index.js';
import { standInEsphome } from '../../src/testing/index.js';
import { manualClock } from '../async/manual-clock.js';
import { fakePython, type FakePython } from '../esphome/fake-python.js';
import { isAlive } from '../support/is-alive.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { assertSucceeded, host, site, type Site } from './site.js';

const probeEnv = { PATH: '/usr/bin:/bin' };
const version = '2026.9.1';
const other = dashboardId('another_peer');

/** A site whose pip installs the stand-in as 2026.9.1. */
async function building(t: TestContext, pip = ''): Promise<Site & { readonly python: FakePython }> {
  const base = await tempDir(t);
  const { layout } = createPaths({ configDir: join(base, 'config') });
  const { venvsDir, locksDir } = layout;
  for (const directory of [venvsDir, locksDir]) await mkdir(directory, { recursive: true });
  const [program, script] = standInEsphome;
  const python = await fakePython(base, {
    ...{ pip, prints: `Version: ${version}`, esphome: `exec '${program}' '${script}' "$@"` },
  });
  const releases = openReleases({
    ...{ venvsDir, locksDir, timing, maxVersions: 3, environment: probeEnv, log },
    pythons: async () => [python.path],
  });
  t.after(() => releases.close());
  const chooseEsphome = createChoice({
    installed: createInstalled({ esphome: standInEsphome, environment: {}, probeEnv, clock: systemClock }),
    releases,
  });
  return { ...(await site(t, base, { chooseEsphome })), python };
}

test('A job is built with the requested release, whose one installation its log reports', async (t) => {
  const here = await building(t);
  const job = await here.build(host('kitchen'), { targetVersion: version });
  assertSucceeded(job);
  assert.deepEqual([job.esphomeVersion, job.waiting], [version, null]);
  assert.match(
    await here.jobs.readLog(job.id),
    /^Installing ESPHome 2026\.9\.1; .*\nSuccessfully installed\n/,
  );
  const again = await here.build(host('kitchen', 'api:\n'), { targetVersion: version, peerJobId: 'job-2' });
  assertSucceeded(again);
  assert.doesNotMatch(await here.jobs.readLog(again.id), /nstall/);
  assert.deepEqual(await here.python.deeds(), ['venv', 'pip']);
  const own = await here.build(host('kitchen'), { targetVersion: '2026.10.0', peerJobId: 'job-3' });
  assert.equal(own.esphomeVersion, '2026.10.0');
});

test('Two releases of ESPHome never install tools of one platform at once', async (t) => {
  const here = await building(t);
  assertSucceeded(await here.build(host('kitchen'), { targetVersion: version }));
  const barrier = join(here.base, 'go-on');
  const esp32 = (name: string): string =>
    `# stand-in: tools wait=${barrier}\nesphome:\n  name: ${name}\nesp32:\n  board: x\n`;
  const jobs = await Promise.all([
    here.submit(esp32('a'), { name: 'a.yaml', peerJobId: 'a' }),
    here.submit(esp32('b'), { name: 'b.yaml', peerJobId: 'b', targetVersion: version }),
  ]);
  const ended = jobs.map((id) => here.ended(id));
  const says = (words: RegExp): Promise<unknown> =>
    Promise.any(jobs.map((id) => waitFor(async () => words.test(await here.jobs.readLog(id)))));
  await says(/^Waiting for another build to install the tools of esp32\.$/m);
  await says(/^stand-in: installs its tools$/m);
  await writeFile(barrier, '');
  for (const job of await Promise.all(ended)) assertSucceeded(job);
});

test('A host build of a release that needs PlatformIO for it enters the gate of its tools', async (t) => {
  const here = await building(t);
  assertSucceeded(await here.build(host('kitchen'), { targetVersion: version }));
  assertSucceeded(await here.build(host('kitchen', 'api:\n'), { peerJobId: 'job-2' }));
  const ready = await readyTools(here.paths.layout.toolchainsDir);
  assert.deepEqual(
    ready.map(({ key }) => key),
    [{ platform: 'host', framework: 'host', toolchain: 'default', selection: '', version }],
  );
});

test('An installation holds no slot: others build meanwhile, and it can be cancelled with nothing left', async (t) => {
  const here = await building(t, 'sleep 1000 & echo "pip $!"; wait');
  const wishes = ['a.yaml', 'b.yaml', 'c.yaml'].map((name) => ({
    name,
    targetVersion: version,
    peerJobId: name,
  }));
  const pip = here.printed(/^pip \d+/);
  const ids = await Promise.all(wishes.map((wish) => here.submit(host('kitchen'), wish)));
  const ends = ids.map((id) => here.ended(id));
  const pid = Number(/\d+/.exec(await pip)?.[0]);
  await waitFor(() => ids.every((id) => here.jobs.get(id)?.waiting?.for === 'esphome'));
  assert.deepEqual(
    ids.map((id) => waitingText(here.jobs.get(id)?.waiting ?? assert.fail())),
    Array.from({ length: 3 }, () => 'ESPHome 2026.9.1 being installed'),
  );
  // There are two slots.
  const others = ['x.yaml', 'y.yaml'].map((name) => here.build(host('other'), { name, dashboardId: other }));
  for (const job of await Promise.all(others)) assertSucceeded(job);

  for (const [index, id] of ids.entries()) {
    assert.ok(isAlive(pid), 'the others still wait for it');
    assert.equal(here.jobs.cancel(id), true);
    assert.equal((await ends[index])?.state, 'cancelled');
  }
  assert.equal(isAlive(pid), false);
  assert.deepEqual(await readdir(here.paths.layout.venvsDir), []);
});

test('A stop ends an installation, and waits for that', async (t) => {
  const here = await building(t, 'sleep 1000 & echo "pip $!"; wait');
  const pip = here.printed(/^pip \d+/);
  await here.submit(host('kitchen'), { targetVersion: version });
  const pid = Number(/\d+/.exec(await pip)?.[0]);
  await here.jobs.close();
  assert.equal(isAlive(pid), false);
  assert.deepEqual(await readdir(here.paths.layout.venvsDir), []);
});

test('What cannot be installed fails as provision, on the wire too, so that the client builds by itself', async (t) => {
  const here = await building(
    t,
    'echo "ERROR: No matching distribution found for esphome==2026.9.1"; exit 1',
  );
  const has = 'this build server has ESPHome 2026.10.0 and';
  const cases = {
    [version]: `${has} could not install 2026.9.1: there is no such release`,
    '2026.11.0.dev20261101': `${has} cannot install "2026.11.0.dev20261101"`,
    '2026.10.0+mine': `${has} cannot install "2026.10.0+mine"`,
  };
  for (const [targetVersion, message] of Object.entries(cases)) {
    const job = await here.build(host('kitchen'), { targetVersion });
    const { state, failureReason, errorMessage, startedAt } = job;
    assert.deepEqual([state, failureReason, errorMessage, startedAt], ['failed', 'provision', message, null]);
    assert.equal(stateFrame(job)?.failure_reason, 'provision');
  }
  assert.deepEqual(await here.python.deeds(), ['venv', 'pip']);
  // A clean needs no ESPHome.
  assertSucceeded(await here.build('k', { target: 'clean', targetVersion: version, peerJobId: 'job-2' }));
});

const caller = new AbortController().signal;
const none = (): void => {};

/** A host's ESPHome that says what a file says. */
async function changeable(t: TestContext) {
  const base = await tempDir(t);
  const program = join(base, 'esphome');
  const set = (answer: string): Promise<void> =>
    writeFile(program, `#!/bin/sh\necho 'Version: ${answer}'\n`, { mode: 0o755 });
  await set('2026.10.0');
  const clock = manualClock();
  const choose: ChooseEsphome = createChoice({
    installed: createInstalled({ esphome: program, environment: {}, probeEnv, clock }),
    releases: null,
  });
  return { set, wait: clock.advance, choose };
}

test("An upgrade of the host's ESPHome while a job waits is seen before it builds", async (t) => {
  const { set, wait, choose } = await changeable(t);
  const [exact, any] = [await choose('2026.10.0', caller, none), await choose('', caller, none)];
  await set('2026.11.0');
  assert.equal(await exact.confirm(caller), '2026.10.0', 'so soon nobody asks');
  wait(60_000);
  assert.equal(await any.confirm(caller), '2026.11.0');
  await assert.rejects(exact.confirm(caller), (error) => {
    assert.ok(isReceiverError(error, 'PROVISION'));
    assert.equal(error.message, 'the ESPHome of this build server changed to 2026.11.0 while the job waited');
    return true;
  });
});

test('A host with a broken ESPHome can still install another; an internal error points to the log', async () => {
  const asked: string[] = [];
  const choice = (obtain: () => Promise<never>): ChooseEsphome =>
    createChoice({
      installed: createInstalled({ esphome: '/no/esphome', environment: {}, probeEnv, clock: systemClock }),
      releases: { obtain: (wanted) => (asked.push(wanted), obtain()) },
    });
  const message = 'this build server has no working ESPHome and could not install 2026.9.1: see its log';
  const failing = choice(() => Promise.reject(new Error('EACCES: /srv/secret')));
  await assert.rejects(failing(version, caller, none), { code: 'PROVISION', message });
  assert.deepEqual(asked, [version]);
  await assert.rejects(failing('', caller, none), { message: 'this build server has no ESPHome installed' });

  const leaving = new AbortController();
  leaving.abort(new ReceiverError('CANCELLED', 'left'));
  const cancelled = choice(() => Promise.reject(leaving.signal.reason));
  await assert.rejects(cancelled(version, leaving.signal, none), { code: 'CANCELLED' });
});
