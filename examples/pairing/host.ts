/**
 * The first process: the dashboard that builds for others, with the page of {@link startHost}.
 *
 *     npx tsx examples/pairing/host.ts DIR [--port 6052] [--link-port 6055] [--esphome CMD]
 *
 * `DASHBOARD_PASSWORD` is the operator's password; without it, a random one is printed. It serves until Ctrl-C.
 */
import { randomBytes } from 'node:crypto';

import { isReceiverError } from 'koa-esphome-receiver';
import { anEsphome } from '../start/an-esphome.js';
import { portOf, readArgs } from '../start/read-args.js';
import { startHost } from './app.js';
import { aborted, endingSignal } from './ending.js';

const usage = 'Usage: host.ts DIR [--port 6052] [--link-port 6055] [--esphome CMD]';

const { values, positionals } = readArgs(usage, {
  allowPositionals: true,
  options: {
    port: { type: 'string', default: '6052' },
    'link-port': { type: 'string', default: '6055' },
    esphome: { type: 'string' },
  },
});

async function main(configDir: string | undefined): Promise<void> {
  if (configDir === undefined) throw new Error(usage);
  const ending = endingSignal();
  const port = portOf('port', values.port);
  const linkPort = portOf('link-port', values['link-port']);
  console.log('Looking for ESPHome');
  const esphome = await anEsphome(values.esphome);
  const password = process.env['DASHBOARD_PASSWORD'] || randomBytes(9).toString('base64url');
  const { url, close, ...bound } = await startHost({
    ...{ password, port, linkPort },
    receiver: { configDir, esphome, friendlyName: 'the build server' },
  });
  console.log(`Peer link: 127.0.0.1:${bound.linkPort}`);
  console.log(`Page: ${url} (any user name, password ${password})`);
  await aborted(ending);
  await close();
}

try {
  await main(positionals[0]);
} catch (error) {
  console.error(
    isReceiverError(error) || (error as Error).message === usage ? (error as Error).message : error,
  );
  process.exitCode = 1;
}
