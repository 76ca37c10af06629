/** `serve` and the real Device Builder: pairing by the printed key, and a stop in good order. */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';
import { startOffloader } from './device-builder.js';
import { realEsphome } from './support.js';

test('A real Device Builder pairs with a server without a screen by its printed key, and by no other', async (t) => {
  const [esphome] = await realEsphome();
  const words = ['--port', '0', '--host', '127.0.0.1', '--esphome', esphome, '--json'];
  const server = await startChild(t, [
    ...([process.execPath, '--import', 'tsx', 'src/cli/main.ts', 'serve', await tempDir(t)] as const),
    ...words,
  ]);
  const [listening] = await server.printed(/^\{"event":"listening".*$/m, { deadlineMs: 20_000 });
  const { port, pin } = JSON.parse(listening) as { port: number; pin: string };
  const [, key = ''] = await server.printed(/"pairing_key","key":"([^"]+)"/);

  const configDir = await tempDir(t);
  await copyFile('examples/configs/kitchen.yaml', join(configDir, 'kitchen.yaml'));
  const dashboard = await startOffloader(t, configDir);
  assert.deepEqual(await dashboard.previewPair(port), { pin_sha256: pin, requires_pairing_key: true });
  await assert.rejects(dashboard.requestPair({ port, pin, key: 'AAAA-AAAA-AAAA-AAAA' }));
  const pairing = await dashboard.requestPair({ port, pin, key });
  assert.equal(pairing.status, 'approved');
  await dashboard.waitConnected(pin);
  await server.printed(/"event":"paired"/);

  assert.equal(await server.stop(), 0);
  assert.equal(await dashboard.stop(), 0);
});
