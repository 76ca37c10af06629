/**
 * What a user of a real Device Builder takes back: a job that waits, a build, all his builds. One receiver and two
 * dashboards, so that what belongs to another one can be seen to stay.
 */
import assert from 'node:assert/strict';
import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { waitFor } from '../support/wait-for.js';
import { openDashboard, openStation, pair, speaking, waitGone } from './matrix-setting.js';

const station = await openStation({ after });
const names = ['one', 'two', 'slow'];
const home = await openDashboard(
  { after },
  Object.fromEntries(names.map((name) => [`${name}.yaml`, speaking(name, `this is ${name}`)])),
);
const office = await openDashboard(
  { after },
  { 'kitchen.yaml': speaking('kitchen', 'the kitchen of the office') },
);

test('Each of two dashboards builds its devices', async () => {
  await pair(home, station);
  await pair(office, station);
  const jobs = await Promise.all([
    ...['one.yaml', 'two.yaml'].map(async (file) => home.waitJob(await home.compile(file))),
    office.compile('kitchen.yaml').then((id) => office.waitJob(id)),
  ]);
  for (const job of jobs) assert.equal(job.status, 'completed', job.error ?? '');
});

test('A job that waits for a slot is cancelled there and here', async () => {
  const slots = await Promise.all(
    ['a.yaml', 'b.yaml'].map((name) => station.receiver.jobs.enqueueLocal(name)),
  );
  const id = await home.compile('slow.yaml');
  await waitFor(() => station.newestJob('slow.yaml').state === 'queued', { deadlineMs: 30_000 });
  await home.cancel(id);
  assert.equal((await home.waitJob(id)).status, 'cancelled');
  await waitFor(() => station.newestJob('slow.yaml').state === 'cancelled', { deadlineMs: 10_000 });
  for (const slot of slots) slot.release();
});

test('Cleaning a device removes its build here, and that of no other', async () => {
  const { configuration } = station.newestJob('one.yaml');
  const build = join(station.receiver.paths.resolveDataDir(configuration), 'build');
  assert.ok((await readdir(build)).includes('one'));
  await home.clean('one.yaml');
  await waitGone(build, 'the clean');
  const other = station.newestJob('two.yaml').configuration;
  await access(join(station.receiver.paths.resolveDataDir(other), 'build'));
});

test("A user who resets the build environment resets only that user's builds", async () => {
  const { pin } = station.receiver;
  assert.equal((await home.waitConnected(pin)).reset_build_env_supported, true);
  const mine = station.newestJob('two.yaml').configuration;
  await home.command('remote_build/reset_peer_build_env', { pin_sha256: pin });
  const build = join(station.receiver.paths.resolveDataDir(mine), 'build');
  await waitGone(build, 'the reset');
  const [theirs] = station.receiver.jobs
    .list()
    .filter(
      ({ peerLabel, file, dashboardId }) =>
        peerLabel && file === 'kitchen.yaml' && dashboardId !== station.newestJob('two.yaml').dashboardId,
    );
  await access(join(station.receiver.paths.resolveDataDir(theirs?.configuration ?? ''), 'build'));
});

test('The dashboards and the build server stop in good order', async () => {
  for (const dashboard of [home, office]) assert.equal(await dashboard.stop(), 0);
  await station.close();
});
