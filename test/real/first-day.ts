/** What a user of any Device Builder does on the first day: pairs, builds, builds in bulk, cleans and resets. */
import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { join } from 'node:path';

import type { Cleanups } from '../support/temp-dir.js';
import { openDashboard, openStation, pair, programOf, speaking, waitGone } from './matrix-setting.js';
import type { OtherDeviceBuilder } from './support.js';

const bulk = ['one', 'two'];
const devices = ['kitchen', ...bulk];

/** With a receiver of its own. */
export async function spendFirstDay(t: Cleanups, version: OtherDeviceBuilder): Promise<void> {
  const station = await openStation(t);
  const { port } = station;
  const files = devices.map((name) => [`${name}.yaml`, speaking(name, `this is ${name}`)]);
  const dashboard = await openDashboard(t, Object.fromEntries(files), version);
  const { pin } = station.receiver;

  assert.equal((await dashboard.previewPair(port)).pin_sha256, pin);
  await pair(dashboard, station);
  assert.equal((await dashboard.waitConnected(pin)).reset_build_env_supported, true);

  const first = await dashboard.waitJob(await dashboard.compile('kitchen.yaml'));
  const asked = (await dashboard.compileBulk(bulk.map((name) => `${name}.yaml`))) as readonly {
    job_id: string;
  }[];
  assert.equal(asked.length, bulk.length);
  const others = await Promise.all(asked.map(({ job_id: id }) => dashboard.waitJob(id)));
  for (const job of [first, ...others]) {
    assert.deepEqual([job.status, job.source], ['completed', 'remote'], job.error ?? '');
  }
  for (const name of devices) {
    const program = await programOf(dashboard, name);
    for (const each of devices) assert.equal(program.includes(`this is ${each}`), each === name, name);
  }

  const buildOf = (name: string): string => {
    const { configuration } = station.newestJob(`${name}.yaml`);
    return join(station.receiver.paths.resolveDataDir(configuration), 'build');
  };
  const [kitchen, one] = [buildOf('kitchen'), buildOf('one')];
  await dashboard.clean('one.yaml');
  await waitGone(one, 'the clean');
  await access(kitchen);
  await dashboard.command('remote_build/reset_peer_build_env', { pin_sha256: pin });
  await waitGone(kitchen, 'the reset');

  assert.equal(await dashboard.stop(), 0);
  await station.close();
}
