/** A real dashboard learns by a call that its build server has moved. Nothing but that call can tell it. */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { createTimedReceiver } from '../../src/koa/plugin.js';
import type { Receiver } from '../../src/index.js';
import { standInEsphome } from '../../src/testing/index.js';
import { recordingLog } from '../support/recording-log.js';
import { freePort } from '../support/free-port.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { openDashboard, pair } from './matrix-setting.js';

const host = '127.0.0.1';

test('A real dashboard that is called back finds the receiver at its new port by itself, and keeps it', async (t) => {
  const configDir = join(await tempDir(t), 'config');
  await mkdir(configDir);
  const log = recordingLog();
  async function start(port: number, connectBack: boolean): Promise<Receiver> {
    const options = { configDir, esphome: standInEsphome, provisionVersions: false, connectBack, log };
    const receiver = await createTimedReceiver(options, { sweepMs: 200, silenceMs: 1_000 });
    t.after(() => receiver.close());
    await receiver.listen(port, host);
    return receiver;
  }
  const [oldPort, newPort] = [await freePort(), await freePort()];
  const first = await start(oldPort, false);
  const dashboard = await openDashboard(t, {});
  await pair(dashboard, { receiver: first, port: oldPort });
  const [peer] = first.peers.list();
  assert.ok(peer && peer.connectBackPort > 0, 'the dashboard has said where it can be called');
  assert.equal(peer.address, host);
  await first.close();
  const gone = async (): Promise<boolean> =>
    (await dashboard.pairings()).every(({ connected }) => !connected);
  await waitFor(gone, { what: 'the end of the session' });

  const second = await start(newPort, true);
  const found = await dashboard.waitConnected(first.pin);
  assert.deepEqual([found.receiver_hostname, found.receiver_port], [host, newPort]);
  await waitFor(() => second.peers.list()[0]?.connected, { what: 'the session' });
  await waitFor(() => /peer-link connect_back from 127\.0\.0\.1 -> ok/.test(dashboard.log()), {
    what: 'the answer to the call',
  });
  const warnings = log.entries.filter((entry) => entry.startsWith('warn'));
  // The time zone is that of the machine that runs the test.
  assert.ok(
    warnings.every((entry) => entry.includes('time zone not set')),
    log.entries.join('\n'),
  );
});
