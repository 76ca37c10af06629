/**
 * What users of a real Device Builder see when a receiver, a dashboard or a key is replaced in the middle of it all. One
 * receiver and two dashboards for all of it, in the order in which it is written.
 */
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { assertNothingLeft, processesBelow } from '../support/killed/leftovers.js';
import { waitFor } from '../support/wait-for.js';
import { startOffloader } from './device-builder.js';
import {
  openDashboard,
  openStation,
  pair,
  pairingsOf,
  programOf,
  speaking,
  waitRunning,
} from './matrix-setting.js';

const station = await openStation({ after });
const home = await openDashboard({ after }, { 'slow.yaml': speaking('slow', 'slowly') });
const office = await openDashboard({ after }, { 'slow.yaml': speaking('slow', 'slow office') });
for (const dashboard of [home, office]) await pair(dashboard, station);

test('A receiver that is restarted in the middle of a build costs the user nothing: his dashboard builds by itself, and comes back', async () => {
  const id = await office.compile('slow.yaml');
  await waitRunning(station, 'slow.yaml');
  await station.receiver.close();
  await station.start();
  const job = await office.waitJob(id);
  assert.equal(job.status, 'completed', job.error ?? '');
  assert.ok((await programOf(office, 'slow')).includes('slow office'));
  await office.waitConnected(station.receiver.pin);
  // Nobody has asked for it again, but it was acknowledged.
  await waitFor(() => station.newestJob('slow.yaml').state === 'completed', { deadlineMs: 60_000 });
});

test('A receiver that is killed in the middle of a build and started again costs the user nothing either', async (t) => {
  const { configDir } = station;
  const { pin } = station.receiver;
  await station.receiver.close();
  const first = await station.startProgram();
  await office.waitConnected(pin);
  // Another text: the result of the one before would come without a build.
  await writeFile(join(office.configDir, 'slow.yaml'), speaking('slow', 'slow office, killed'));
  const id = await office.compile('slow.yaml');
  await office.waitOutput(id, /\[\d+\/\d+\] CXX/);
  assert.equal(await station.stateOnDisk(id), 'running');
  first.signal('SIGKILL');
  assert.equal(await first.ended, 'SIGKILL', first.output());
  await waitFor(async () => (await processesBelow(configDir)).length === 0, {
    deadlineMs: 10_000,
    what: 'the end of the compiler, whose receiver is no more',
  });

  const second = await station.startProgram();
  const job = await office.waitJob(id);
  t.diagnostic(`after the kill its API reports: ${job.status}, ${job.source}, error ${job.error}`);
  assert.equal(job.status, 'completed', job.error ?? '');
  assert.ok((await programOf(office, 'slow')).includes('slow office, killed'));
  await office.waitConnected(pin);
  // As after a restart in good order: it was acknowledged, and is built once more.
  await waitFor(async () => (await station.stateOnDisk(id)) === 'completed', {
    deadlineMs: 60_000,
    what: 'its end here',
  });
  assert.equal(await second.stop(), 0, second.output());
  await assertNothingLeft(configDir);
  await station.start();
  assert.equal(station.newestJob('slow.yaml').peerJobId, id);
  await office.waitConnected(pin);
});

test('A dashboard that is restarted in the middle of a build is connected again by itself and builds', async (t) => {
  const { pin } = station.receiver;
  await home.waitConnected(pin);
  await home.compile('slow.yaml');
  await waitRunning(station, 'slow.yaml');
  assert.equal(await home.stop(), 0);
  const again = await startOffloader(t, home.configDir);
  await again.waitConnected(pin);
  const job = await again.waitJob(await again.compile('slow.yaml'));
  assert.deepEqual([job.status, job.source], ['completed', 'remote'], job.error ?? '');
  await station.receiver.peers.revoke(station.newestJob('slow.yaml').dashboardId);
  await waitFor(async () => (await again.pairings()).every(({ connected }) => !connected), {
    deadlineMs: 30_000,
    what: 'the end of the session there',
  });
  t.diagnostic(`after a revoke its API reports: ${(await pairingsOf(again)).join('; ')}`);
  assert.equal(station.receiver.peers.list().length, 1);
  assert.equal(await again.stop(), 0);
});

test('A receiver with another key is not spoken to, says so, and can be paired with anew', async (t) => {
  const before = station.receiver.pin;
  await office.waitConnected(before);
  await station.receiver.close();
  await rm(join(station.configDir, '.esphome-receiver'), { recursive: true });
  await assert.rejects(station.start(), { code: 'STATE', message: /identity key/ });
  await station.start({ newIdentity: true });
  const { pin } = station.receiver;
  assert.notEqual(pin, before);
  const [refused] = await waitFor(
    async () => {
      const pairings = await office.pairings();
      return pairings.some(({ last_connect_error: error }) => error !== '') ? pairings : undefined;
    },
    { deadlineMs: 60_000, what: 'the alarm of the dashboard' },
  );
  t.diagnostic(`with another key its API reports: ${JSON.stringify(refused)}`);
  assert.equal(refused?.connected, false);
  await pair(office, station);
  await office.unpair(pin);
  await waitFor(async () => (await office.pairings()).every(({ pin_sha256: each }) => each !== pin), {
    deadlineMs: 10_000,
    what: 'the end of the pairing there',
  });
  await waitFor(() => station.receiver.peers.list().every(({ connected }) => !connected), {
    deadlineMs: 10_000,
  });
});

test('The dashboard and the build server stop in good order', async () => {
  assert.equal(await office.stop(), 0);
  await station.close();
});
