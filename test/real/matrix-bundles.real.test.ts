/**
 * What a user of a real Device Builder sends that is not one plain file: includes, secrets, a component of its own, and
 * what fails. One receiver and one dashboard.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { openDashboard, openStation, pair, programOf, speaking } from './matrix-setting.js';

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
const home = await openDashboard(
  { after },
  {
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
  },
);
await pair(home, station);

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

test('The dashboard and the build server stop in good order', async () => {
  assert.equal(await home.stop(), 0);
  await station.close();
});
