/** A bundle that the real ESPHome makes, with names that are not UTF-8, from the upload to the removal. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { tempDir } from '../support/temp-dir.js';
import { pairedClient, startReceiver } from '../support/whole.js';
import { realEsphome } from './support.js';

const yaml = `
esphome: {name: attic}
host:
logger:
external_components: [{source: {type: local, path: my_components}}]
shouter:
`;
const component = `
import esphome.codegen as cg
import esphome.config_validation as cv
from esphome.const import CONF_ID
ns = cg.esphome_ns.namespace("shouter")
Shouter = ns.class_("Shouter", cg.Component)
CONFIG_SCHEMA = cv.Schema({cv.GenerateID(): cv.declare_id(Shouter)})
async def to_code(config):
    await cg.register_component(cg.new_Pvariable(config[CONF_ID]), config)
`;
const header = `#pragma once
#include "esphome/core/component.h"
namespace esphome::shouter { class Shouter : public Component {}; }
`;
/** Not a header: ESPHome 2026.10 itself cannot include one with such a name. */
const strange = Buffer.from('my_components/shouter/caf\xe9.txt', 'latin1');

test('A component with a file whose name is not UTF-8 builds as it does at home, and is removed with its peer', async (t) => {
  const [esphome] = await realEsphome();
  const home = await tempDir(t);
  const at = (path: string | Buffer): Buffer => Buffer.concat([Buffer.from(`${home}/`), Buffer.from(path)]);
  mkdirSync(at('my_components/shouter'), { recursive: true });
  writeFileSync(at('attic.yaml'), yaml);
  writeFileSync(at('my_components/shouter/__init__.py'), component);
  writeFileSync(at('my_components/shouter/shouter.h'), header);
  writeFileSync(at(strange), 'a note\n');
  const archive = join(home, 'attic.tar.gz');
  execFileSync(esphome, ['bundle', 'attic.yaml', '--output', archive], { cwd: home, stdio: 'ignore' });

  const whole = await startReceiver(t, { esphome: [esphome] });
  const client = await pairedClient(t, whole);
  const session = await client.openSession();
  const lines: string[] = [];
  const result = await session.build({
    file: 'attic.yaml',
    bundle: await readFile(archive),
    onOutput: (line) => lines.push(line),
  });
  assert.equal(result.status, 'completed', `${result.errorMessage}\n${lines.join('')}`);

  const [job] = whole.receiver.jobs.list();
  const subtree = whole.receiver.paths.resolveDataDir(job?.configuration ?? '');
  const sent = Buffer.concat([Buffer.from(`${subtree}/config/`), strange]);
  assert.equal(readFileSync(sent, 'utf8'), 'a note\n');
  assert.ok(await whole.receiver.peers.revoke(client.dashboardId));
  assert.ok(!existsSync(subtree));
  assert.deepEqual(await readdir(whole.receiver.paths.layout.trashDir), []);
});
