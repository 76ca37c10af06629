/** The environment of a remote build, tried on the real ESPHome with a host that does its worst. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { access, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { before, test } from 'node:test';

import { createEnvironment } from '../../src/esphome/environment.js';
import { createPaths, dashboardId, deviceFromFile } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { tempDir } from '../support/temp-dir.js';
import { realEsphome } from './support.js';

let esphome = '';
before(async () => {
  [esphome] = await realEsphome();
});

test("a host that is an add-on with a data directory of its own cannot move a peer's build", async (t) => {
  const base = await tempDir(t);
  const foreign = join(base, 'foreign');
  const paths = createPaths({ configDir: join(base, 'config') });
  const key = { dashboardId: dashboardId(exampleId), device: deviceFromFile('kitchen.yaml') };
  const configuration = paths.formatConfiguration(key, 'kitchen.yaml');
  const compose = createEnvironment({
    paths,
    environment: {
      PATH: process.env['PATH'],
      ESPHOME_IS_HA_ADDON: '1',
      ESPHOME_DATA_DIR: foreign,
      ESPHOME_BUILD_PATH: join(base, 'elsewhere'),
      SUPERVISOR_TOKEN: 'hunter2hunter2',
    },
  });
  const yaml = paths.resolveConfigPath(configuration);
  await mkdir(dirname(yaml), { recursive: true });
  await writeFile(
    yaml,
    'esphome: {name: node, comment: !env_var SUPERVISOR_TOKEN "not to be seen"}\nhost:\n',
  );

  execFileSync(esphome, ['compile', '--only-generate', yaml], {
    env: compose(configuration),
    stdio: 'ignore',
  });

  assert.ok((await stat(paths.resolveStoragePath(configuration))).isFile());
  assert.ok((await stat(paths.resolveBuildPath(configuration, { name: 'node' }))).isDirectory());
  const sidecar = await readFile(paths.resolveStoragePath(configuration), 'utf8');
  assert.match(sidecar, /not to be seen/);
  assert.doesNotMatch(sidecar, /hunter2/);
  for (const place of [foreign, join(base, 'elsewhere'), join(dirname(yaml), '.gitignore')]) {
    await assert.rejects(access(place), { code: 'ENOENT' });
  }
});
