import assert from 'node:assert/strict';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { createPathStripper, withRealPaths } from '../../src/server/outbox.js';
import { createPaths, dashboardId, deviceFromFile } from '../../src/paths/index.js';
import { exampleId } from '../support/hostile.js';
import { tempDir } from '../support/temp-dir.js';

const key = { dashboardId: dashboardId(exampleId), device: deviceFromFile('kitchen.yaml') };

test("A line shows the device's own files by relative paths, and no other path of the machine", () => {
  const { layout, buildsDir } = createPaths({ configDir: '/config' });
  const hide = createPathStripper(layout, ['/config', buildsDir, '/home/me']);
  const subtree = layout.subtree(key);
  assert.equal(hide(`Reading ${subtree}/config/kitchen.yaml...\n`, key), 'Reading config/kitchen.yaml...\n');
  assert.equal(
    hide(`-I${buildsDir}/other/hall/x /config/secrets.yaml /home/me/.ssh`, key),
    '-I…/other/hall/x …/secrets.yaml …/.ssh',
  );
  assert.equal(hide('[1/34] CXX main.cpp.o', key), '[1/34] CXX main.cpp.o');
});

test('A directory behind a link is stripped under both of its paths', async (t) => {
  const base = await tempDir(t);
  await mkdir(join(base, 'real'));
  await symlink('real', join(base, 'alias'));
  const { layout } = createPaths({ configDir: join(base, 'alias') });
  const hide = createPathStripper(layout, await withRealPaths([join(base, 'alias')]));
  assert.equal(hide(`${base}/alias/x ${base}/real/y`, key), '…/x …/y');
});

test('A directory that does not exist stays as it is, and one that cannot be resolved is an error', async (t) => {
  const base = await tempDir(t);
  const missing = [join(base, 'nothing'), '/dev/null/home'];
  assert.deepEqual(await withRealPaths(missing), [...missing, ...missing]);
  await symlink('loop', join(base, 'loop'));
  await assert.rejects(withRealPaths([join(base, 'loop')]), { code: 'ELOOP' });
});
