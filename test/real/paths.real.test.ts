/** The resolver's local answers against ESPHome's own, in each of its deployments. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { before, test } from 'node:test';

import { createPaths, explicitDataDir } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { realEsphome } from './support.js';

let esphome = '';
before(async () => {
  [esphome] = await realEsphome();
});

/** What ESPHome itself computes for a YAML, without writing anything. */
const question = `
import json, sys
from pathlib import Path
from esphome.core import CORE
from esphome.compiled_config import compiled_config_path
from esphome.storage_json import storage_path
CORE.config_path = Path(sys.argv[1])
CORE.name = "node"
print(json.dumps({
    "data": str(CORE.data_dir),
    "storage": str(storage_path()),
    "validated": str(compiled_config_path(CORE.config_filename)),
    "idedata": str(CORE.relative_internal_path("idedata", "node.json")),
}))
`;

function ask(yaml: string, env: Record<string, string>): Record<string, string> {
  const python = join(dirname(esphome), 'python');
  const words = ['-c', question, yaml];
  return JSON.parse(
    execFileSync(python, words, { encoding: 'utf8', env: { PATH: '/usr/bin:/bin', ...env } }),
  ) as Record<string, string>;
}

for (const [deployment, env] of [
  ['the default', {}],
  ['a Home Assistant add-on', { ESPHOME_IS_HA_ADDON: 'true' }],
  ['an add-on with a data directory as well', { ESPHOME_IS_HA_ADDON: '1', ESPHOME_DATA_DIR: '/elsewhere' }],
  ['an explicit data directory', { ESPHOME_DATA_DIR: '/elsewhere/data' }],
  ['a marker that says no', { ESPHOME_IS_HA_ADDON: 'no', ESPHOME_DATA_DIR: '/elsewhere/data' }],
] as const) {
  test(`local answers are ESPHome's own in ${deployment}`, async (t) => {
    const configDir = await tempDir(t);
    const paths = createPaths({ configDir, dataDir: explicitDataDir(env) });
    for (const configuration of ['kitchen.yaml', 'rooms/K\u00fcche 1.yaml']) {
      assert.deepEqual(
        {
          data: paths.resolveDataDir(configuration),
          storage: paths.resolveStoragePath(configuration),
          validated: paths.resolveValidatedPath(configuration),
          idedata: paths.resolveIdedataPath(configuration, { name: 'node', toolchain: 'host' }),
        },
        ask(join(configDir, configuration), env),
      );
    }
  });
}

test('ESPHome writes its sidecar and its build where the resolver says', async (t) => {
  const base = await tempDir(t);
  for (const env of [{}, { ESPHOME_DATA_DIR: join(base, 'data') }]) {
    const configDir = join(base, Object.keys(env).length === 0 ? 'plain' : 'explicit');
    await mkdir(configDir);
    await writeFile(join(configDir, 'kitchen.yaml'), 'esphome: {name: node}\nhost:\n');
    execFileSync(esphome, ['compile', '--only-generate', join(configDir, 'kitchen.yaml')], {
      env: { PATH: process.env['PATH'] ?? '', HOME: base, ...env },
      stdio: 'ignore',
    });
    const paths = createPaths({ configDir, dataDir: explicitDataDir(env) });
    assert.ok((await stat(paths.resolveStoragePath('kitchen.yaml'))).isFile());
    assert.ok((await stat(paths.resolveValidatedPath('kitchen.yaml'))).isFile());
    assert.ok((await stat(paths.resolveBuildPath('kitchen.yaml', { name: 'node' }))).isDirectory());
  }
});
