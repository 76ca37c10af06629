import assert from 'node:assert/strict';
import { test } from 'node:test';

import { tempDir } from '../support/temp-dir.js';
import { toolPlace } from '../retention/tool-place.js';

test('Broken tools are set aside only once nobody else uses or installs into their directory', async (t) => {
  const { directories, fill, list } = await toolPlace(await tempDir(t));
  const request = { reason: 'a test' };
  await fill('idf', 'platformio');
  const installing = await directories.useAlone(['platformio'], request);
  const using = await directories.use(['idf'], request);
  assert.equal(await directories.isInUse('platformio'), true);
  const renewing = directories.useAlone(['idf', 'platformio'], request).then(async (installer) => {
    for (const name of ['idf', 'platformio']) assert.ok(await installer.setAside(name));
    return installer.leave();
  });
  await using.leave();
  assert.deepEqual(await list(), ['idf', 'platformio']);
  await installing.leave();
  await renewing;
  assert.deepEqual(await list(), []);
});
