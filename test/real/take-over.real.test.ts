/** A build server is replaced by ours, and its clients notice nothing. */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { startChild } from '../support/child.js';
import { tempDir } from '../support/temp-dir.js';
import { startOffloader, startOriginalReceiver } from './device-builder.js';
import { esphomeVersion, realEsphome } from './support.js';

test('A real dashboard that was paired with the original finds ours in its place by itself, and builds', async (t) => {
  const [esphome] = await realEsphome();
  const configDir = await tempDir(t);
  await copyFile('examples/configs/kitchen.yaml', join(configDir, 'kitchen.yaml'));
  const original = await startOriginalReceiver(t);
  const { port, pin, pairingKey: key } = original;
  const dashboard = await startOffloader(t, configDir);
  await dashboard.requestPair({ port, pin, key });
  await dashboard.waitConnected(pin);

  const words = ['--port', String(port), '--host', '127.0.0.1', '--esphome', esphome, '--json'];
  const takeOver = [original.configDir, '--take-over', original.configDir, ...words];
  const program = [process.execPath, '--import', 'tsx', 'src/cli/main.ts', 'serve', ...takeOver] as const;
  // Two servers with one key would take each other's clients.
  const tooEarly = await startChild(t, program);
  assert.equal(await tooEarly.ended, 1);
  assert.match(tooEarly.output(), /takeover refused: Device Builder is still running/);

  assert.equal(await original.stop(), 0);
  const server = await startChild(t, program);
  const [listening] = await server.printed(/^\{"event":"listening".*$/m, { deadlineMs: 20_000 });
  const { host, port: bound, pin: shown, esphome: version } = JSON.parse(listening);
  assert.deepEqual([host, bound, shown, version], ['127.0.0.1', port, pin, esphomeVersion]);
  const pairing = await dashboard.waitConnected(pin);
  assert.deepEqual([pairing.status, pairing.last_connect_error], ['approved', '']);

  const job = await dashboard.waitJob(await dashboard.compile('kitchen.yaml'));
  assert.deepEqual([job.source, job.status], ['remote', 'completed'], job.error ?? '');
  assert.equal(await dashboard.stop(), 0);
  assert.equal(await server.stop(), 0);
  assert.doesNotMatch(server.output(), /pairing_key/, 'somebody is paired already');
});
