/** Which entries count as devices, on a disk where builds can create anything. */
import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { devicesOnDisk, maxDevicesPerPeer, maxStrange } from '../../src/jobs/devices-on-disk.js';
import { tempDir } from '../support/temp-dir.js';

const [mine, other] = ['dashboard-of-mine', 'dashboard-of-others'];

test('Device count and report length of a peer are limited, without effect on other peers', async (t) => {
  const base = await tempDir(t);
  for (const peer of [mine, other]) mkdirSync(join(base, peer, 'kitchen'), { recursive: true });
  for (let n = 0; n < maxDevicesPerPeer + 3; n += 1) mkdirSync(join(base, mine, `d${n}`));
  for (let n = 0; n < maxStrange; n += 1) writeFileSync(join(base, mine, `file-${n}`), '');
  const { keys, strange } = await devicesOnDisk(base);
  assert.equal(keys.filter(({ dashboardId }) => dashboardId === mine).length, maxDevicesPerPeer);
  assert.deepEqual(
    keys.filter(({ dashboardId }) => dashboardId !== mine),
    [{ dashboardId: other, device: 'kitchen' }],
  );
  assert.equal(strange.length, maxStrange + 1);
  assert.deepEqual(strange.at(-1), { place: '', why: '4 more are not named here' });
});

test('Links and files are reported and never entered', async (t) => {
  const base = await tempDir(t);
  mkdirSync(join(base, mine, 'kitchen'), { recursive: true });
  symlinkSync(join(base, mine), join(base, other));
  symlinkSync(join(base, mine, 'kitchen'), join(base, mine, 'hall'));
  writeFileSync(join(base, mine, 'file'), '');
  const { keys, peers, strange } = await devicesOnDisk(base);
  assert.deepEqual(peers, [mine]);
  assert.deepEqual(keys, [{ dashboardId: mine, device: 'kitchen' }]);
  assert.deepEqual(
    strange.toSorted((a, b) => (a.place < b.place ? -1 : 1)),
    [
      { place: `${mine}/file`, why: 'it is not a directory' },
      { place: `${mine}/hall`, why: 'it is a link' },
      { place: other, why: 'it is a link' },
    ],
  );
});
