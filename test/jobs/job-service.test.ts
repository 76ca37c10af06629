/**
 * The lifecycle of jobs, forced to each moment: cancel, stop, replacement, restart. Covers src/jobs/lifecycle.ts and
 * src/jobs/local-work.ts.
 */
import assert from 'node:assert/strict';
import { readdir, writeFile } from 'node:fs/promises';
import { test, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { spaceOf, type StagedBundle } from '../../src/bundles/store.js';
import { ReceiverError, isReceiverError } from '../../src/errors.js';
import { createMemoryStore } from './memory-store.js';
import { dashboardId } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { bundleIn, deferred, exampleRequest } from './examples.js';
import { cleanResult, createWorld, moments, type Moment, type WorldOptions } from './harness.js';
import { heldAt, statesTold, submitted, waitForStep, type Held } from './held.js';

test('A job goes through its steps in order, and completes with its artifacts kept', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const { id, ended } = submitted(world);
  assert.equal(world.jobs.get(id)?.state, 'receiving');
  const key = exampleRequest();
  assert.ok(world.jobs.isBusy(key));
  assert.ok(!world.jobs.isBusy({ ...key, dashboardId: dashboardId('somebody-else') }));
  const job = await ended;
  assert.ok(!world.jobs.isBusy(key));
  assert.deepEqual([...world.jobs.resultBytes()], [[key.dashboardId, job.artifacts?.bytes]]);
  const { state, artifacts, esphomeVersion, attempt, errorMessage } = job;
  assert.deepEqual(
    { state, bytes: artifacts?.bytes, esphomeVersion, attempt, errorMessage },
    { state: 'completed', bytes: 3, esphomeVersion: '2026.10.0', attempt: 1, errorMessage: '' },
  );
  assert.deepEqual(statesTold(world.events, id), ['queued', 'running', 'completed']);
  const once = (step: string): boolean => step !== 'recordBuild' && step !== 'beforeStart';
  assert.deepEqual(world.steps.filter(once), [...moments.filter(once), 'put:end', 'discard']);
  assert.equal((await world.jobs.openArtifacts(id)).bytes, 3);
  assert.equal(await world.jobs.readLog(id), '[1/2] CXX a.o\n');
  world.assertAtRest();
});

test('Only ended jobs that have a result are results', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const { id, ended } = submitted(world);
  assert.deepEqual(world.jobs.results(), []);
  await ended;
  const broken = Promise.reject(new ReceiverError('BUNDLE', 'the bundle is damaged'));
  const other = world.jobs.submit(exampleRequest({ peerJobId: 'broken' }), broken);
  assert.equal((await world.ended(other.id)).state, 'failed');
  assert.deepEqual(
    world.jobs.results().map((each) => each.id),
    [id],
  );
});

test('No compiler starts before the running state is stored', async (t) => {
  const world = await heldAt(t, 'put:running');
  const { ended } = submitted(world);
  await world.reached;
  await turn();
  assert.equal(world.steps.at(-1), 'put:running');
  assert.ok(!world.steps.includes('compile') && !world.steps.includes('precheck'));
  world.letGo();
  assert.equal((await ended).state, 'completed');
  world.assertAtRest();
});

for (const moment of moments) {
  test(`A cancel at ${moment} ends the job as cancelled, once, and leaves nothing`, async (t) => {
    const world = await heldAt(t, moment);
    const { id, ended } = submitted(world);
    await world.reached;
    assert.equal(world.jobs.cancel(id), true);
    assert.equal(world.jobs.cancel(id), true, 'asking twice is no error');
    world.letGo();
    const { state, errorMessage, artifacts } = await ended;
    assert.deepEqual(
      { state, errorMessage, artifacts },
      { state: 'cancelled', errorMessage: 'cancelled', artifacts: null },
    );
    assert.equal(world.jobs.cancel(id), false);
    await world.jobs.close();
    assert.deepEqual(world.errors, []);
    world.assertAtRest();
  });
}

test('A cancel while the bundle still arrives ends the job at once; the late bundle is removed', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const intake = deferred<StagedBundle>();
  const { id } = world.jobs.submit(exampleRequest(), intake.promise);
  const ended = world.ended(id);
  assert.equal(world.jobs.cancelByPeer(exampleRequest().dashboardId, 'job-1'), true);
  assert.equal((await ended).state, 'cancelled');
  assert.deepEqual(statesTold(world.events, id), ['cancelled']);
  let isClosed = false;
  const closing = world.jobs.close().then(() => (isClosed = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isClosed, false, 'it was closed while a bundle still arrived');
  intake.resolve(bundleIn(world));
  await closing;
  world.assertAtRest();
});

test('A cancel after the decision is too late and returns false', async (t) => {
  const world = await heldAt(t, 'put:end');
  const { id, ended } = submitted(world);
  await world.reached;
  assert.equal(world.jobs.cancel(id), false);
  world.letGo();
  assert.equal((await ended).state, 'completed');
  world.assertAtRest();
});

test('Nobody sees an end that a crash could still take back', async (t) => {
  const world = await heldAt(t, 'put:end');
  const { id, ended } = submitted(world);
  await world.reached;
  const job = world.jobs.get(id) ?? assert.fail();
  const seen = (): unknown[] => [
    world.jobs.get(id)?.state,
    world.jobs.find(job.dashboardId, job.peerJobId)?.state,
    ...world.jobs.list().map(({ state }) => state),
  ];
  assert.deepEqual(seen(), ['running', 'running', 'running']);
  world.letGo();
  await ended;
  assert.deepEqual(seen(), ['completed', 'completed', 'completed']);
});

test('A cancel of an unknown job is no error', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  assert.equal(world.jobs.cancel('gone'), false);
  assert.equal(world.jobs.cancelByPeer(exampleRequest().dashboardId, 'gone'), false);
});

/** A world with a finished build whose bundle comes again, held while the result is copied. */
async function reusing(t: TestContext): Promise<Held & { readonly again: ReturnType<typeof submitted> }> {
  const world = await heldAt(t, 'copyArtifacts', { run: { resultCache: true } });
  await submitted(world).ended;
  const again = submitted(world, { peerJobId: 'job-2' });
  await world.reached;
  return { ...world, again };
}

test('A reused result is reported like any other, without a compile', async (t) => {
  const world = await reusing(t);
  world.letGo();
  const { state, cached, attempt } = await world.again.ended;
  assert.deepEqual({ state, cached, attempt }, { state: 'completed', cached: true, attempt: 1 });
  assert.deepEqual(statesTold(world.events, world.again.id), ['queued', 'running', 'completed']);
  for (const step of ['compile', 'installBundle', 'openBuildDir']) {
    assert.equal(world.steps.filter((taken) => taken === step).length, 1, step);
  }
  world.assertAtRest();
});

test('A cancel while a result is copied leaves no copy', async (t) => {
  const world = await reusing(t);
  world.jobs.cancel(world.again.id);
  world.letGo();
  const { state, cached } = await world.again.ended;
  assert.deepEqual({ state, cached }, { state: 'cancelled', cached: false });
  world.assertAtRest();
});

for (const what of ['lose', 'steal'] as const) {
  test(`A lease that goes (${what}) while a result is copied has the bundle built`, async (t) => {
    const world = await reusing(t);
    for (const lease of world.leases.values()) lease[what]();
    world.letGo();
    const { state, cached, attempt } = await world.again.ended;
    assert.deepEqual({ state, cached, attempt }, { state: 'completed', cached: false, attempt: 2 });
    assert.equal(world.steps.filter((step) => step === 'compile').length, 2);
    world.assertAtRest();
  });
}

test('A result that goes while it is copied has the bundle built', async (t) => {
  const world = await reusing(t);
  world.artifacts.clear();
  await world.jobs.remove(world.jobs.list()[0]?.id ?? '');
  world.letGo();
  const { state, cached, attempt } = await world.again.ended;
  assert.deepEqual({ state, cached, attempt }, { state: 'completed', cached: false, attempt: 1 });
  world.assertAtRest();
});

const failures: readonly (readonly [string, Partial<WorldOptions>, string])[] = [
  [
    'a lock that is not free in time',
    throwing('acquireLease', new ReceiverError('LOCK_TIMEOUT', 'in use')),
    'lock_lost: in use',
  ],
  [
    'no ESPHome',
    throwing('chooseEsphome', new ReceiverError('PROVISION', 'none here')),
    'provision: none here',
  ],
  [
    'a program that cannot start',
    throwing('compile', new ReceiverError('SPAWN', 'no such')),
    'toolchain: no such',
  ],
  [
    'a build that went elsewhere',
    throwing('verify', new ReceiverError('WROTE_ELSEWHERE', 'away')),
    'wrote_elsewhere: away',
  ],
  [
    'artifacts that are missing',
    throwing('storeArtifacts', new ReceiverError('ARTIFACTS', 'no ini')),
    'compile: no ini',
  ],
  [
    'a full disk',
    throwing('installBundle', Object.assign(new Error('ENOSPC: /srv'), { code: 'ENOSPC' })),
    'resource: the disk of the build server is full; make room there and build again',
  ],
  [
    'a surprise',
    throwing('openBuildDir', new Error('EPERM: /srv/secret')),
    'internal: internal error of the build server; see its log',
  ],
  [
    'a bad bundle path',
    throwing('installBundle', new ReceiverError('TRAVERSAL', 'a link')),
    'bundle: a link',
  ],
  [
    'an invalid configuration',
    { run: { compile: async () => ({ ...cleanResult, exitCode: 2 }) } },
    'config: the configuration is invalid; the log says where',
  ],
  [
    'a precheck that fails',
    { run: { precheck: async () => ({ ...cleanResult, exitCode: 1 }) } },
    'compile: the compile failed (exit code 1); the log says why',
  ],
  [
    'a compile that is too slow',
    { run: { compile: async () => ({ ...cleanResult, timedOut: true }) } },
    "resource: stopped: it took longer than 1 second; build again, or have the build server's limit raised",
  ],
  [
    'a compile that hangs',
    { run: { compile: async () => ({ ...cleanResult, silent: true }), silenceTimeoutMs: 600_000 } },
    "resource: stopped: it printed nothing for 10 minutes; build again, or have the build server's limit raised",
  ],
];

function throwing(moment: Moment, error: Error): Partial<WorldOptions> {
  return {
    async gate(at) {
      if (at === moment) throw error;
    },
  };
}

for (const [what, options, expected] of failures) {
  test(`A job with ${what} fails for that reason, and the next job runs`, async (t) => {
    const world = await createWorld({ jobsDir: await tempDir(t), ...options });
    const { state, failureReason, errorMessage } = await submitted(world).ended;
    assert.deepEqual([state, `${failureReason}: ${errorMessage}`], ['failed', expected]);
    assert.deepEqual(world.jobs.queueStatus(), { idle: true, running: false, queueDepth: 0, freeSlots: 1 });
    await submitted(world, { peerJobId: 'job-2' }).ended;
    world.assertAtRest();
  });
}

test('A bundle that is refused fails its job before it queues', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const { id } = world.jobs.submit(
    exampleRequest(),
    Promise.reject(new ReceiverError('BUNDLE', 'the bundle is damaged')),
  );
  const { failureReason, errorMessage } = await world.ended(id);
  assert.deepEqual([failureReason, errorMessage], ['bundle', 'the bundle is damaged']);
  assert.deepEqual(statesTold(world.events, id), ['failed']);
  world.assertAtRest();
});

test('A clean runs no ESPHome, installs no bundle and has no artifacts', async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const { id, ended } = submitted(world, { target: 'clean', targetVersion: '1.2.3' });
  assert.deepEqual([(await ended).state, (await ended).artifacts], ['completed', null]);
  const expected = [
    'put:receiving',
    'keep',
    'slot',
    'acquireLease',
    'clean',
    'release',
    'put:end',
    'discard',
  ];
  assert.deepEqual(world.steps, expected);
  await assert.rejects(world.jobs.openArtifacts(id), (error) => isReceiverError(error, 'STATE'));
  await assert.rejects(world.jobs.openArtifacts('gone'), (error) => isReceiverError(error, 'NOT_FOUND'));
  world.assertAtRest();
});

test('A newer job replaces the older one of the same peer, device and target, and no other', async (t) => {
  const world = await heldAt(t, 'compile', { slots: 9 });
  const running = submitted(world, { peerJobId: 'running' });
  await world.reached;
  const others = [
    submitted(world, { peerJobId: 'other-target', target: 'clean', name: 'kitchen.yaml' }),
    submitted(world, { peerJobId: 'other-device', name: 'bath.yaml' }),
    submitted(world, { peerJobId: 'other-peer', dashboardId: dashboardId('another_peer') }),
  ];
  assert.equal((await others[1]?.ended)?.state, 'completed');
  assert.equal((await others[2]?.ended)?.state, 'completed');
  const newer = submitted(world, { peerJobId: 'newer' });
  const replaced = await running.ended;
  assert.deepEqual(
    [replaced.state, replaced.errorMessage],
    ['cancelled', 'replaced by a newer job for the same device'],
  );
  assert.equal((await newer.ended).state, 'completed');
  assert.equal((await others[0]?.ended)?.state, 'completed');
  world.assertAtRest();
});

test('A bundle that is bad replaces nothing, and an older job whose bundle comes later gives way', async (t) => {
  const world = await heldAt(t, 'compile');
  const slow = deferred<StagedBundle>();
  const { id: slowId } = world.jobs.submit(exampleRequest({ peerJobId: 'slow' }), slow.promise);
  const slowEnded = world.ended(slowId);
  const running = submitted(world, { peerJobId: 'running' });
  assert.equal((await slowEnded).state, 'cancelled');
  await world.reached;
  const bad = world.jobs.submit(exampleRequest(), Promise.reject(new ReceiverError('BUNDLE', 'bad')));
  await world.ended(bad.id);
  assert.equal(world.jobs.get(running.id)?.state, 'running');
  world.letGo();
  assert.equal((await running.ended).state, 'completed');
  slow.resolve(bundleIn(world));
  await world.jobs.close();
  world.assertAtRest();
});

test("A peer's id that is used again means the newer job", async (t) => {
  const world = await createWorld({ jobsDir: await tempDir(t) });
  const first = submitted(world);
  await first.ended;
  const second = submitted(world);
  const found = world.jobs.find(exampleRequest().dashboardId, 'job-1');
  assert.equal(found?.id, second.id);
  assert.equal(world.jobs.find(dashboardId('another_peer'), 'job-1'), undefined);
  await second.ended;
});

test('The queue status is emitted at each change: busy while a job runs, idle after the last', async (t) => {
  const world = await heldAt(t, 'compile');
  const first = submitted(world);
  await world.reached;
  const second = submitted(world, { name: 'bath.yaml' });
  await waitForStep(world, 'slot', 2);
  assert.deepEqual(world.jobs.queueStatus(), { idle: false, running: true, queueDepth: 1, freeSlots: 0 });
  world.letGo();
  await Promise.all([first.ended, second.ended]);
  const told = world.events.flatMap((event) =>
    event.type === 'queue' ? [`${event.status.running} ${event.status.queueDepth}`] : [],
  );
  assert.deepEqual(told, ['false 1', 'true 0', 'true 1', 'false 1', 'true 0', 'false 0']);
  assert.equal(world.events.at(-1)?.type, 'queue');
});

test('Output is emitted with its job and kept in a bounded log; progress is emitted when it changes', async (t) => {
  const lines = [
    'INFO Generating C++ source...\n',
    '[1/2] CXX a.o\n',
    '[1/2] CXX a.o\n',
    '[2/2] LINK program\n',
  ];
  const jobsDir = await tempDir(t);
  const world = await createWorld({
    jobsDir,
    deps: { maxOutputBytes: 65_536 },
    run: {
      async compile({ onLine }) {
        for (const line of lines) onLine(line);
        for (let n = 0; n < 1_100; n += 1) onLine(`${'x'.repeat(1_023)}\n`);
        return cleanResult;
      },
    },
  });
  const { id, ended } = submitted(world);
  await ended;
  const output = world.events.flatMap((event) => (event.type === 'output' ? [event.line] : []));
  assert.deepEqual(output.slice(0, 4), lines);
  assert.equal(output.filter((line) => line.startsWith('[output limit reached')).length, 1);
  const progress = world.events.flatMap((event) =>
    event.type === 'progress' ? [event.job.progress.percent] : [],
  );
  assert.deepEqual(progress, [null, 50, 100]);
  const log = await world.jobs.readLog(id);
  assert.ok(log.startsWith(lines.join('')));
  assert.match(log, /^\[\d+ lines omitted/m);
  assert.ok(log.length <= 65_536 + 100);
  assert.equal(await world.jobs.remove(id), true);
  assert.deepEqual(await readdir(jobsDir), []);
  await assert.rejects(world.jobs.readLog(id), (error) => isReceiverError(error, 'NOT_FOUND'));
});

test('A listener that fails, a log and a store that cannot be written do not fail the job', async (t) => {
  const refuse = (): Promise<never> => Promise.reject(new Error('the disk is gone'));
  const file = `${await tempDir(t)}/file`;
  await writeFile(file, '');
  const memory = createMemoryStore();
  const world = await createWorld({
    jobsDir: `${file}/below`,
    store: { ...memory, put: (record) => (record.state === 'receiving' ? memory.put(record) : refuse()) },
    deps: { removeArtifacts: refuse },
  });
  const stop = world.jobs.subscribe(() => assert.fail('a bad listener'));
  const { id, ended } = submitted(world);
  assert.equal((await ended).state, 'completed');
  assert.equal(await world.jobs.readLog(id), '');
  stop();
  assert.equal(world.jobs.cancel(submitted(world, { name: 'bath.yaml' }).id), true);
  await world.jobs.close();
});

test('A job that cannot be removed is still known, in its place, and can be removed later', async (t) => {
  const memory = createMemoryStore();
  let isReadOnly = true;
  const world = await createWorld({
    jobsDir: await tempDir(t),
    store: {
      ...memory,
      remove: (id) => (isReadOnly ? Promise.reject(new Error('read-only')) : memory.remove(id)),
    },
  });
  const ids = [];
  for (const name of ['a.yaml', 'b.yaml', 'c.yaml']) ids.push((await submitted(world, { name }).ended).id);
  const [, second = ''] = ids;
  await assert.rejects(world.jobs.remove(second), /read-only/);
  assert.deepEqual(
    world.jobs.list().map(({ id }) => id),
    ids,
  );
  isReadOnly = false;
  assert.equal(await world.jobs.remove(second), true);
  assert.equal(world.jobs.get(second), undefined);
});

test('The bundle of a job counts while the job waits or runs', async (t) => {
  const world = await heldAt(t, 'compile');
  const { ended } = submitted(world);
  await world.reached;
  const waiting = submitted(world, { name: 'bath.yaml' });
  await waitForStep(world, 'put:queued');
  assert.deepEqual([...world.jobs.stagedBytes().values()], [2 * spaceOf({ bytes: 1, members: 1 })]);
  world.letGo();
  await ended;
  await waiting.ended;
  assert.equal(world.jobs.stagedBytes().size, 0);
});

test('PlatformIO progress is relative to the largest earlier build of the same device', async (t) => {
  const world = await createWorld({
    jobsDir: await tempDir(t),
    run: {
      async compile({ onLine }) {
        for (let n = 0; n < 4; n += 1) onLine('Compiling .pioenvs/k/a.o\n');
        return cleanResult;
      },
    },
  });
  assert.equal((await submitted(world).ended).progress.percent, null);
  assert.equal((await submitted(world, { name: 'bath.yaml' }).ended).progress.expected, 0);
  const again = await submitted(world).ended;
  assert.deepEqual([again.progress.expected, again.progress.percent], [4, 99]);
});

test("The first build of a device is measured against the largest of its platform, also another dashboard's", async (t) => {
  const world = await createWorld({
    jobsDir: await tempDir(t),
    run: {
      async compile({ onLine }) {
        for (let n = 0; n < 4; n += 1) onLine('Compiling .pioenvs/k/a.o\n');
        return cleanResult;
      },
      tools: {
        compile({ lease, configuration, onPlatform }, run) {
          onPlatform(configuration.includes('bath') ? 'rp2' : 'esp8266');
          return run(lease);
        },
      },
    },
  });
  assert.equal((await submitted(world).ended).progress.percent, null);
  assert.equal((await submitted(world, { name: 'bath.yaml' }).ended).progress.expected, 0);
  const other = await submitted(world, { name: 'hall.yaml' }).ended;
  assert.deepEqual([other.progress.expected, other.progress.percent], [4, 99]);
});

test('No peer can queue too many jobs, or displace the results of others', async (t) => {
  const world = await heldAt(t, 'compile', { deps: { maxJobsPerPeer: 3, maxResultsPerPeer: 2 } });
  const kept = submitted(world, { dashboardId: dashboardId('another_peer') });
  await world.reached;
  world.letGo();
  await kept.ended;
  const held = [1, 2, 3].map((n) => submitted(world, { name: `d${n}.yaml` }));
  const refused = await submitted(world, { name: 'd4.yaml' }).ended;
  assert.deepEqual([refused.failureReason, refused.startedAt], ['resource', null]);
  assert.match(refused.errorMessage, /^a dashboard can have at most 3 waiting or running jobs;/);
  for (const { ended } of held) assert.equal((await ended).state, 'completed');
  await world.jobs.close();
  assert.deepEqual(
    world.jobs.list().map(({ id }) => id),
    [kept.id, held[1]?.id, held[2]?.id, refused.id],
  );
  assert.equal((await world.store.load()).length, 4);
  world.assertAtRest();
});

test('All jobs of one peer can be ended, and only those', async (t) => {
  const world = await heldAt(t, 'compile', { slots: 1 });
  const mine = [submitted(world), submitted(world, { name: 'bath.yaml' })];
  const other = submitted(world, { dashboardId: dashboardId('another_peer') });
  await world.reached;
  await world.jobs.cancelAllOf(exampleRequest().dashboardId);
  for (const { id } of mine) assert.equal(world.jobs.get(id)?.state, 'cancelled');
  assert.equal((await other.ended).state, 'completed');
  world.assertAtRest();
});

test('A job that has not ended cannot be removed', async (t) => {
  const world = await heldAt(t, 'compile');
  const { id, ended } = submitted(world);
  await world.reached;
  assert.equal(await world.jobs.remove(id), false);
  world.letGo();
  await ended;
  assert.equal(await world.jobs.remove(id), true);
  assert.equal(await world.jobs.remove(id), false);
  assert.deepEqual([world.jobs.list(), [...world.artifacts]], [[], []]);
});
