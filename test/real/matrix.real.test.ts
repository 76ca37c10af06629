/**
 * What users of a real Device Builder do with a receiver, beyond the main job, and what their dashboard then says. One
 * receiver and two dashboards for all of it, in the order in which it is written: each dashboard holds its first remote
 * compile back for 20 s.
 */
import assert from 'node:assert/strict';
import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { waitFor } from '../support/wait-for.js';
import { openDashboard, openStation, pair, pairingsOf, programOf, speaking } from './matrix-setting.js';

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

test('Nothing of all that is left', async () => {
  for (const dashboard of [home, office]) assert.equal(await dashboard.stop(), 0);
  await station.close();
});
