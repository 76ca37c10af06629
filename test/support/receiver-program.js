/**
 * A receiver as a separate program, so that a test can kill it:
 * `receiver-program.js DIR LOCK_STALE_MS [SLOTS [BUILT [PORT [ESPHOME ...]]]]`.
 * It builds with the stand-in unless it gets another compiler, lets every client pair, and prints its port and pin as one
 * line of JSON. BUILT is a directory with the built package; without it, or with '', the sources run, which needs tsx
 * and one more second.
 */
import process from 'node:process';
import { pathToFileURL } from 'node:url';

const [configDir = '', lockStaleMs, slots = '1', built = '', wanted = '0', ...compiler] =
  process.argv.slice(2);
const root = built === '' ? '../../src' : pathToFileURL(built).href;
/** @type {typeof import('../../src/index.js')} */
const { createReceiver } = await import(`${root}/index.js`);
/** @type {typeof import('../../src/testing/index.js')} */
const { standInEsphome } = await import(`${root}/testing/index.js`);

const receiver = await createReceiver({
  configDir,
  lockStaleMs: Number(lockStaleMs),
  esphome: compiler.length > 0 ? compiler : standInEsphome,
  slots: Number(slots),
  provisionVersions: false,
});
receiver.pairing.open();
receiver.subscribe((event) => {
  if (event.type !== 'requested') return;
  receiver.pairing.approve(event.request.dashboardId, event.request.pin).catch(() => process.exit(1));
});
const port = await receiver.listen(Number(wanted), '127.0.0.1');
console.log(JSON.stringify({ port, pin: receiver.pin }));
process.once('SIGTERM', () => {
  receiver.close().then(
    () => process.exit(0),
    () => process.exit(1),
  );
});
