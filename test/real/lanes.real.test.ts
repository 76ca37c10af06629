/** Several lanes with an unmodified Device Builder, which sends one build at a time to each build server. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { standInEsphome } from '../../src/testing/index.js';
import { freePort } from '../support/free-port.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import type { Offloader } from './device-builder.js';
import { openDashboard, openStation, pair, programOf, speaking, type Station } from './matrix-setting.js';

async function openLanes(
  t: Cleanups,
  lanes: number,
  options: Parameters<typeof openStation>[1],
): Promise<Station> {
  const lanePorts = await Promise.all(Array.from({ length: lanes - 1 }, () => freePort()));
  return openStation(t, { lanes, lanePorts, slots: 4, minFreeMemoryBytes: 0, ...options });
}

/** Pairs with the first lane by approval, and with the others without one. */
async function pairAll(dashboard: Offloader, station: Station): Promise<void> {
  await pair(dashboard, station);
  for (const { port, pin } of station.receiver.lanes().slice(1)) {
    const { status } = await dashboard.requestPair({ port: port!, pin: pin! });
    assert.equal(status, 'approved');
    await dashboard.waitConnected(pin!);
  }
}

function running({ receiver }: Station): number {
  return receiver.jobs.list().filter(({ state }) => state === 'running').length;
}

test('A bulk of four builds runs on three lanes at once, one on each, and a revocation holds for all', async (t) => {
  const station = await openLanes(t, 3, { esphome: standInEsphome, provisionVersions: false });
  const barrier = join(await tempDir(t), 'go-on');
  const names = ['one', 'two', 'three', 'four'];
  const files = names.map((name) => [`${name}.yaml`, `# stand-in: wait=${barrier}\n${speaking(name, name)}`]);
  const dashboard = await openDashboard(t, Object.fromEntries(files));
  await pairAll(dashboard, station);
  const asked = (await dashboard.compileBulk(names.map((name) => `${name}.yaml`))) as { job_id: string }[];
  await waitFor(() => running(station) === 3, { deadlineMs: 60_000, what: 'three builds at once' });
  const lanes = station.receiver.jobs.list().map(({ lane }) => lane);
  assert.deepEqual(
    lanes.toSorted((a, b) => a - b),
    [1, 2, 3],
  );
  await writeFile(barrier, '');
  for (const { job_id: id } of asked) {
    const job = await dashboard.waitJob(id);
    assert.deepEqual([job.status, job.source], ['completed', 'remote'], job.error ?? '');
  }

  const [peer] = station.receiver.peers.list();
  await station.receiver.peers.revoke(peer!.dashboardId);
  await waitFor(async () => (await dashboard.pairings()).every(({ connected }) => !connected), {
    deadlineMs: 60_000,
    what: 'the end of all sessions',
  });
  await dashboard.stop();
  await station.close();
});

test('A device builds incrementally whichever lane it arrives on, and each dashboard gets its own program', async (t) => {
  const station = await openLanes(t, 2, { resultCache: false });
  const files = ['one', 'two'].map((name) => [`${name}.yaml`, speaking(name, `this is ${name}`)]);
  const dashboard = await openDashboard(t, Object.fromEntries(files));
  await pairAll(dashboard, station);
  const build = async (...names: string[]): Promise<string[]> => {
    const asked = (await dashboard.compileBulk(names.map((name) => `${name}.yaml`))) as { job_id: string }[];
    for (const { job_id: id } of asked) assert.equal((await dashboard.waitJob(id)).status, 'completed');
    return asked.map(({ job_id: id }) => id);
  };
  await build('one', 'two');
  const laneOf = (name: string): number => station.newestJob(`${name}.yaml`).lane;
  const before = { one: laneOf('one'), two: laneOf('two') };
  assert.notEqual(before.one, before.two);
  for (const name of ['one', 'two'])
    assert.match(await programOf(dashboard, name), new RegExp(`this is ${name}`));

  const again = await build('two', 'one');
  assert.deepEqual({ one: laneOf('one'), two: laneOf('two') }, { one: before.two, two: before.one });
  for (const id of again) await dashboard.waitOutput(id, /ninja: no work to do/);
  await dashboard.stop();
  await station.close();
});
