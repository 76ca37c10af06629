/**
 * What users of a real Device Builder do with a receiver, beyond the main job, and what their dashboard then says. One
 * receiver and two dashboards for all of it, in the order in which it is written: each dashboard holds its first remote
 * compile back for 20 s.
 */
import assert from 'node:assert/strict';
import { access, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { assertNothingLeft, processesBelow } from '../support/killed/leftovers.js';
import { waitFor } from '../support/wait-for.js';
import { startOffloader, type Offloader } from './device-builder.js';
import { openDashboard, openStation, pair, programOf, speaking, waitRunning } from './matrix-setting.js';

const bulk = ['one', 'two', 'three', 'four', 'five', 'six'];
const component = `
import esphome.codegen as cg
import esphome.config_validation as cv
from esphome.const import CONF_ID
ns = cg.esphome_ns.namespace("shouter")
Shouter = ns.class_("Shouter", cg.Component)
CONFIG_SCHEMA = cv.Schema({cv.GenerateID(): cv.declare_id(Shouter), cv.Required("words"): cv.string})
async def to_code(config):
    var = cg.new_Pvariable(config[CONF_ID])
    await cg.register_component(var, config)
    cg.add(var.set_words(config["words"]))
`;
const header = `#pragma once
#include "esphome/core/component.h"
#include "esphome/core/log.h"
namespace esphome { namespace shouter {
class Shouter : public Component {
 public:
  void set_words(const char *words) { this->words_ = words; }
  void setup() override { ESP_LOGI("shouter", "from the local component: %s", this->words_); }
 private:
  const char *words_{nullptr};
};
} }
`;
const attic = `
esphome: {name: attic}
host:
packages: {base: !include common/base.yaml}
external_components: [{source: {type: local, path: my_components}}]
# In a block: ESPHome 2026.10 does not see a secret that a brace follows.
shouter:
  words: !secret shout
`;

const station = await openStation({ after });
const { port } = station;
const home = await openDashboard(
  { after },
  {
    'kitchen.yaml': speaking('kitchen', 'the kitchen at home'),
    'slow.yaml': speaking('slow', 'slowly'),
    'attic.yaml': attic,
    'common/base.yaml': 'logger: {level: DEBUG}\n',
    'secrets.yaml': 'shout: "a secret that is shouted"\n',
    'my_components/shouter/__init__.py': component,
    'my_components/shouter/shouter.h': header,
    'invalid.yaml': 'esphome: {name: invalid}\nhost:\nlogger: {level: LOUD}\n',
    'uncompilable.yaml': speaking('uncompilable', 'x').replace(
      'then:',
      'then:\n      - lambda: "this_is_no_cpp;"',
    ),
    ...Object.fromEntries(bulk.map((name) => [`${name}.yaml`, speaking(name, `this is ${name}`)])),
  },
);
const office = await openDashboard(
  { after },
  {
    'kitchen.yaml': speaking('kitchen', 'the kitchen of the office'),
    'slow.yaml': speaking('slow', 'slow office'),
  },
);

const pairingsOf = async (dashboard: Offloader): Promise<string[]> =>
  (await dashboard.pairings()).map(({ status, connected, last_connect_error: error }) =>
    [status, connected ? 'connected' : 'away', error].join(' ').trim(),
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

test('A bundle with secrets, includes and a component of its own builds as it does at home', async () => {
  const id = await home.compile('attic.yaml');
  const job = await home.waitJob(id);
  assert.equal(job.status, 'completed', home.outputOf(id));
  const program = await programOf(home, 'attic');
  assert.ok(program.includes('from the local component'));
  assert.ok(program.includes('a secret that is shouted'));
});

test('An invalid configuration and one that does not compile fail, and the user reads why', async () => {
  const invalid = await home.waitJob(await home.compile('invalid.yaml'));
  assert.equal(invalid.status, 'failed');
  const id = await home.compile('uncompilable.yaml');
  const broken = await home.waitJob(id);
  assert.equal(broken.status, 'failed');
  assert.equal(station.newestJob('uncompilable.yaml').failureReason, 'compile');
  assert.match(broken.error ?? '', /compil/i);
  assert.match(home.outputOf(id), /this_is_no_cpp/);
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
  await waitFor(
    async () =>
      access(build).then(
        () => false,
        () => true,
      ),
    { deadlineMs: 30_000, what: 'the clean' },
  );
  const other = station.newestJob('two.yaml').configuration;
  await access(join(station.receiver.paths.resolveDataDir(other), 'build'));
});

test("A user who resets the build environment resets his own builds and nobody else's", async () => {
  const { pin } = station.receiver;
  assert.equal((await home.waitConnected(pin)).reset_build_env_supported, true);
  const mine = station.newestJob('two.yaml').configuration;
  await home.command('remote_build/reset_peer_build_env', { pin_sha256: pin });
  const build = join(station.receiver.paths.resolveDataDir(mine), 'build');
  await waitFor(
    async () =>
      access(build).then(
        () => false,
        () => true,
      ),
    { deadlineMs: 30_000, what: 'the reset' },
  );
  const [theirs] = station.receiver.jobs
    .list()
    .filter(
      ({ peerLabel, file, dashboardId }) =>
        peerLabel && file === 'kitchen.yaml' && dashboardId !== station.newestJob('two.yaml').dashboardId,
    );
  await access(join(station.receiver.paths.resolveDataDir(theirs?.configuration ?? ''), 'build'));
});

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
  await station.start();
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

test('Nothing of all that is left', async () => {
  assert.equal(await office.stop(), 0);
  await writeFile(join(station.configDir, '.keep'), '');
  await station.close();
});
