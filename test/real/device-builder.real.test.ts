/**
 * The driver of the real Device Builder, tried with both ends original. When a test of ours fails and this one
 * passes, the fault is ours.
 */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { tempDir } from '../support/temp-dir.js';
import { startOffloader, startOriginalReceiver } from './device-builder.js';

test('A real dashboard pairs with the original receiver, sends a build and cancels it in the middle', async (t) => {
  const configDir = await tempDir(t);
  await copyFile('examples/configs/kitchen.yaml', join(configDir, 'kitchen.yaml'));
  const receiver = await startOriginalReceiver(t);
  const dashboard = await startOffloader(t, configDir);

  const shown = await dashboard.previewPair(receiver.port);
  assert.deepEqual(shown, { pin_sha256: receiver.pin, requires_pairing_key: true });
  const pairing = await dashboard.requestPair({
    port: receiver.port,
    pin: receiver.pin,
    key: receiver.pairingKey,
  });
  assert.equal(pairing.status, 'approved');
  assert.equal((await dashboard.waitConnected(receiver.pin)).auto_provision_supported, true);

  const id = await dashboard.compile('kitchen.yaml');
  await dashboard.waitOutput(id, /\[\d+\/\d+\] CXX/);
  assert.equal((await dashboard.job(id)).source, 'remote');
  await dashboard.cancel(id);
  assert.equal((await dashboard.waitJob(id)).status, 'cancelled');

  assert.equal(await dashboard.stop(), 0);
  assert.equal(await receiver.stop(), 0);
});
