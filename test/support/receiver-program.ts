/**
 * A receiver as a program of its own, so that a test can kill it: `receiver-program.ts DIR LOCK_STALE_MS
 * [SLOTS]`. It builds with the stand-in, lets everybody pair, and prints its port and pin as one line of JSON.
 */
import process from 'node:process';

import { createReceiver } from '../../src/index.js';
import { standInEsphome } from '../../src/testing/index.js';

const [configDir = '', lockStaleMs, slots = '1'] = process.argv.slice(2);
const receiver = await createReceiver({
  configDir,
  lockStaleMs: Number(lockStaleMs),
  esphome: standInEsphome,
  slots: Number(slots),
  provisionVersions: false,
});
receiver.pairing.open();
receiver.subscribe((event) => {
  if (event.type !== 'requested') return;
  receiver.pairing.approve(event.request.dashboardId, event.request.pin).catch(() => process.exit(1));
});
const port = await receiver.listen(0, '127.0.0.1');
console.log(JSON.stringify({ port, pin: receiver.pin }));
process.once('SIGTERM', () => {
  receiver.close().then(
    () => process.exit(0),
    () => process.exit(1),
  );
});
