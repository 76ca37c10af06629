/**
 * One receiver as several build servers: src/koa/plugin.ts, src/koa/listen.ts, src/peers/identity.ts,
 * src/server/sessions.ts and src/server/peer-server.ts with more than one lane.
 */
import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';

import type { ReceiverOptions } from '../../src/index.js';
import { ReceiverError } from '../../src/errors.js';
import { listenOnLanes, type Listener } from '../../src/koa/listen.js';
import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  type OffloaderSession,
} from '../../src/koa/offloader.js';
import { silentLog as log } from '../../src/log.js';
import { keepTrust, loadIdentity } from '../../src/peers/identity.js';
import { manualClock } from '../async/manual-clock.js';
import { recordingLog } from '../support/recording-log.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { startReceiver, yaml, type Whole } from '../support/whole.js';

const host = '127.0.0.1';

interface Dashboard {
  session(lane: number): Promise<OffloaderSession>;
  bundle(file: string, text: string): Promise<Buffer>;
}

/** A dashboard that an operator has approved on the first lane. */
async function approvedDashboard(t: TestContext, { receiver }: Whole): Promise<Dashboard> {
  const directory = await tempDir(t);
  const identity = await loadOffloaderIdentity(directory);
  const clientOf = (number: number): ReturnType<typeof createOffloader> => {
    const port = receiver.lanes()[number - 1]?.port ?? 0;
    return createOffloader({ identity, connect: () => dial({ host, port }), label: 'home' });
  };
  receiver.pairing.open();
  await clientOf(1).requestPairing({ pin: receiver.pin });
  const [request] = receiver.pairing.requests();
  await receiver.pairing.approve(request!.dashboardId, request!.pin);
  return {
    async session(number) {
      const pin = String(receiver.lanes()[number - 1]?.pin);
      assert.equal(await clientOf(number).requestPairing({ pin }), 'approved');
      const session = await clientOf(number).openSession({ pin });
      t.after(() => session.close());
      return session;
    },
    async bundle(file, text) {
      await writeFile(join(directory, file), text);
      return (await makeBundle({ configDir: directory, file })).bytes;
    },
  };
}

async function start(t: TestContext, options: Partial<ReceiverOptions> = {}): Promise<Whole> {
  return startReceiver(t, { lanes: 3, slots: 3, friendlyName: 'nas', minFreeMemoryBytes: 0, ...options });
}

test('A dashboard that is approved on one lane builds on all at once, each with its own key, port and name', async (t) => {
  const whole = await start(t);
  const { receiver, base } = whole;
  const lanes = receiver.lanes();
  assert.deepEqual(
    lanes.map(({ number, friendlyName }) => `${number} ${friendlyName}`),
    ['1 nas', '2 nas 2', '3 nas 3'],
  );
  assert.equal(new Set(lanes.map(({ pin }) => pin)).size, 3);
  assert.equal(new Set(lanes.map(({ port }) => port)).size, 3);
  assert.equal(lanes[0]?.pin, receiver.pin);

  const dashboard = await approvedDashboard(t, whole);
  const barrier = join(base, 'go-on');
  const builds = [1, 2, 3].map(async (number) => {
    const session = await dashboard.session(number);
    assert.equal(session.receiver.friendlyName, lanes[number - 1]?.friendlyName);
    const file = `lamp${number}.yaml`;
    const lines: string[] = [];
    const result = await session.build({
      ...{ file, bundle: await dashboard.bundle(file, yaml(`lamp${number}`, `wait=${barrier}`)) },
      onOutput: (line) => lines.push(line),
    });
    assert.equal(result.status, 'completed');
    assert.ok(lines.some((line) => line.includes(`lamp${number}`)));
    assert.ok((await session.downloadArtifacts(result.jobId)).bytes.length > 0);
  });
  await waitFor(() => receiver.jobs.list().filter(({ state }) => state === 'running').length === 3);
  assert.deepEqual(
    receiver.jobs
      .list()
      .map(({ lane }) => lane)
      .toSorted((a, b) => a - b),
    [1, 2, 3],
  );
  await writeFile(barrier, '');
  await Promise.all(builds);
});

test('A lane is idle for its clients as long as a slot is free', async (t) => {
  const whole = await start(t, { slots: 2 });
  const dashboard = await approvedDashboard(t, whole);
  const [one, two, three] = await Promise.all([1, 2, 3].map((number) => dashboard.session(number)));
  const barrier = join(whole.base, 'go-on');
  const build = async (session: OffloaderSession, name: string): Promise<void> => {
    const bundle = await dashboard.bundle(`${name}.yaml`, yaml(name, `wait=${barrier}`));
    assert.equal((await session.build({ file: `${name}.yaml`, bundle })).status, 'completed');
  };
  const running = (count: number): Promise<unknown> =>
    waitFor(() => whole.receiver.jobs.list().filter(({ state }) => state === 'running').length === count);
  const first = build(one!, 'lamp');
  await running(1);
  await waitFor(() => three!.queueStatus()?.idle === true, { what: 'a free slot' });
  const second = build(two!, 'fan');
  await running(2);
  await waitFor(() => three!.queueStatus()?.idle === false, { what: 'no free slot' });
  await writeFile(barrier, '');
  await Promise.all([first, second]);
});

test('A job id that runs on one lane is refused on another', async (t) => {
  const whole = await start(t);
  const dashboard = await approvedDashboard(t, whole);
  const [one, two] = await Promise.all([dashboard.session(1), dashboard.session(2)]);
  const barrier = join(whole.base, 'go-on');
  const request = {
    ...{ jobId: '4be1c09a77d2', file: 'lamp.yaml' },
    bundle: await dashboard.bundle('lamp.yaml', yaml('lamp', `wait=${barrier}`)),
  };
  const first = one.build(request);
  await waitFor(() => whole.receiver.jobs.list().some(({ state }) => state === 'running'));
  await assert.rejects(two.build(request), (error: ReceiverError) => {
    assert.equal(error.code, 'REJECTED');
    assert.equal(error.facts['reason'], 'duplicate_submit: lane 1 already has a job with this id');
    return true;
  });
  await writeFile(barrier, '');
  assert.equal((await first).status, 'completed');
});

test('A revocation ends the sessions on all lanes, and the peer counts as connected until the last one ends', async (t) => {
  const whole = await start(t);
  const { receiver } = whole;
  const dashboard = await approvedDashboard(t, whole);
  const sessions = await Promise.all([1, 2].map((number) => dashboard.session(number)));
  const isConnected = (): boolean | undefined => receiver.peers.list()[0]?.connected;
  const events: boolean[] = [];
  receiver.subscribe((event) => event.type === 'session' && events.push(event.connected));
  await sessions[1]!.close();
  assert.equal(isConnected(), true);
  const again = await dashboard.session(2);
  const { dashboardId } = receiver.peers.list()[0]!;
  await receiver.peers.revoke(dashboardId);
  for (const session of [sessions[0]!, again]) assert.equal(await session.ended, 'hung_up');
  await waitFor(() => events.length > 0);
  assert.deepEqual(events, [false]);
});

test('Lane keys survive when the number of lanes falls and rises again', async (t) => {
  const { receiver, options } = await start(t);
  const pins = receiver.lanes().map(({ pin }) => pin);
  await receiver.close();
  const again = async (lanes: number): Promise<(string | null)[]> => {
    const whole = await startReceiver(t, { ...options, lanes });
    const found = whole.receiver.lanes().map(({ pin }) => pin);
    await whole.receiver.close();
    return found;
  };
  assert.deepEqual(await again(1), pins.slice(0, 1));
  assert.deepEqual(await again(3), pins);
});

test('A lane with a damaged key does not start and gets no new key, and the others serve', async (t) => {
  const stateDir = await tempDir(t);
  const { receiver, options } = await start(t, { stateDir });
  const file = join(stateDir, 'identity-2.key');
  await receiver.close();
  await writeFile(file, 'short');
  const recorded = recordingLog();
  const whole = await startReceiver(t, { ...options, log: recorded });
  const lanes = whole.receiver.lanes();
  assert.deepEqual(
    lanes.map(({ port, fault }) => [port !== null, fault === null]),
    [
      [true, true],
      [false, false],
      [true, true],
    ],
  );
  assert.match(String(lanes[1]?.fault), /identity-2\.key .* has 5 bytes/);
  assert.ok(recorded.entries.includes('error: lane not started'));
  assert.equal(await readFile(file, 'utf8'), 'short');
});

test('A lost key of a lane is not made anew, and one that is lost while the receiver runs is written again', async (t) => {
  const stateDir = await tempDir(t);
  const { receiver, options } = await start(t, { stateDir });
  const pins = receiver.lanes().map(({ pin }) => pin);
  await receiver.close();
  await rm(join(stateDir, 'identity-3.key'));
  const whole = await startReceiver(t, options);
  assert.match(String(whole.receiver.lanes()[2]?.fault), /identity-3\.key .* is missing/);
  await whole.receiver.close();
  const anew = await startReceiver(t, { ...options, newIdentity: true });
  const after = anew.receiver.lanes().map(({ pin }) => pin);
  assert.deepEqual(after.slice(0, 2), pins.slice(0, 2));
  assert.ok(after[2] !== null && after[2] !== pins[2]);

  await anew.receiver.close();
  await rm(join(stateDir, 'identity-2.key'));
  await writeFile(join(stateDir, 'lanes'), 'damaged');
  const doubtful = await startReceiver(t, options);
  assert.match(String(doubtful.receiver.lanes()[1]?.fault), /identity-2\.key .* is missing/);

  const clock = manualClock();
  const identity = await loadIdentity(stateDir, log, {}, 'identity-3.key');
  const kept = [{ number: 3, identity, friendlyName: '' }];
  const end = keepTrust(stateDir, kept, { reread: async () => {}, clock, log });
  await rm(join(stateDir, 'identity-3.key'));
  clock.advance(60_000);
  await end();
  assert.deepEqual(await loadIdentity(stateDir, log, {}, 'identity-3.key'), identity);
});

test('A lane whose port is taken tries again, and the others serve meanwhile', async () => {
  const clock = manualClock();
  const taken = new Set([6056]);
  const bound: number[] = [];
  const closed: number[] = [];
  const lanes = await listenOnLanes({
    ...{ lanes: [2, 3], portOf: (lane: number) => 6054 + lane, clock, log },
    async listen(port): Promise<Listener> {
      if (taken.has(port))
        throw new ReceiverError('STATE', `cannot listen on ${port}: the address is already in use`);
      return { port, address: host, close: async () => void closed.push(port) };
    },
    onListening: (lane) => bound.push(lane),
  });
  assert.deepEqual(bound, [3]);
  assert.deepEqual(lanes.ports.get(2), {
    port: null,
    fault: 'cannot listen on 6056: the address is already in use',
  });
  taken.clear();
  clock.advance(10_000);
  await waitFor(() => bound.includes(2));
  assert.deepEqual(lanes.ports.get(2), { port: 6056, fault: null });
  await lanes.close();
  assert.deepEqual(
    closed.toSorted((a, b) => a - b),
    [6056, 6057],
  );
});
