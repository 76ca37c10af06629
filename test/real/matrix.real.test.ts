/**
 * What users of a real Device Builder do with a receiver, beyond the main job, and what their dashboard then says. One
 * receiver and two dashboards for all of it, in the order in which it is written: each dashboard holds its first remote
 * compile back for 20 s.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { waitFor } from '../support/wait-for.js';
import { openDashboard, openStation, pair, pairingsOf, programOf, speaking } from './matrix-setting.js';

const bulk = ['one', 'two', 'three', 'four', 'five', 'six'];
const station = await openStation({ after });
const { port } = station;
const home = await openDashboard(
  { after },
  {
    'kitchen.yaml': speaking('kitchen', 'the kitchen at home'),
    ...Object.fromEntries(bulk.map((name) => [`${name}.yaml`, speaking(name, `this is ${name}`)])),
  },
);
const office = await openDashboard(
  { after },
  { 'kitchen.yaml': speaking('kitchen', 'the kitchen of the office') },
);

test('A request that is rejected, and one whose window closes, is gone for both, and the dashboard may ask again', async () => {
  const { pin, pairing } = station.receiver;
  await assert.rejects(home.requestPair({ port, pin }), /window/i);
  for (const refuse of [(id: string) => assert.ok(pairing.reject(id)), () => pairing.close()]) {
    pairing.open();
    assert.equal((await home.requestPair({ port, pin })).status, 'pending');
    const [request] = pairing.requests();
    refuse(request?.dashboardId ?? '');
    assert.deepEqual(pairing.requests(), []);
    await waitFor(async () => (await home.pairings()).length === 0, {
      deadlineMs: 20_000,
      what: 'the end of the request there',
    });
    pairing.close();
  }
});

test('A dashboard that is paired and asks again is paired, without a window', async () => {
  await pair(home, station);
  await pair(office, station);
  const { pin } = station.receiver;
  assert.equal((await home.requestPair({ port, pin })).status, 'approved');
  await home.waitConnected(pin);
  assert.deepEqual(await pairingsOf(home), ['approved connected']);
  assert.equal(station.receiver.peers.list().length, 2);
});

test('Two dashboards with a device of one name build at once, and each gets its own program', async () => {
  const ids = await Promise.all([home, office].map((dashboard) => dashboard.compile('kitchen.yaml')));
  let atOnce = 0;
  const stop = station.receiver.subscribe(() => {
    const running = station.receiver.jobs.list().filter(({ state }) => state === 'running').length;
    atOnce = Math.max(atOnce, running);
  });
  const jobs = await Promise.all([home.waitJob(ids[0] ?? ''), office.waitJob(ids[1] ?? '')]);
  stop();
  for (const job of jobs)
    assert.deepEqual([job.status, job.source], ['completed', 'remote'], job.error ?? '');
  assert.equal(atOnce, 2);
  const [athome, inoffice] = [await programOf(home, 'kitchen'), await programOf(office, 'kitchen')];
  assert.ok(athome.includes('the kitchen at home') && !athome.includes('the kitchen of the office'));
  assert.ok(inoffice.includes('the kitchen of the office') && !inoffice.includes('the kitchen at home'));
});

test('Six devices in bulk all end completed, each with its own program', async () => {
  const asked = (await home.compileBulk(bulk.map((name) => `${name}.yaml`))) as readonly { job_id: string }[];
  assert.equal(asked.length, bulk.length);
  for (const { job_id: id } of asked) {
    const job = await home.waitJob(id);
    assert.deepEqual([job.status, job.source], ['completed', 'remote'], job.error ?? '');
  }
  for (const name of bulk) {
    const program = await programOf(home, name);
    for (const each of bulk)
      assert.equal(program.includes(`this is ${each}`), each === name, `${name} ${each}`);
  }
});

test('The dashboards and the build server stop in good order', async () => {
  for (const dashboard of [home, office]) assert.equal(await dashboard.stop(), 0);
  await station.close();
});
