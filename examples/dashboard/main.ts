/**
 * A small Koa dashboard with the receiver mounted. It lists its own devices and the builds of its peers together.
 *
 *     npx tsx examples/dashboard/main.ts DIR [--port 6052]     serves the YAML files of DIR until Ctrl-C
 *     npx tsx examples/dashboard/main.ts --once                runs a self-test in a temporary directory
 *
 * `DASHBOARD_PASSWORD` is the operator's password; without it, a random one is printed.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';

import { isReceiverError } from 'koa-esphome-receiver';
import { portOf, readArgs } from '../start/read-args.js';
import { startDashboard } from './dashboard.js';
import { showOnce } from './once.js';

const usage = 'Usage: main.ts DIR [--port 6052]  or  main.ts --once';

async function serve(configDir: string, port: number): Promise<void> {
  const password = process.env['DASHBOARD_PASSWORD'] || randomBytes(9).toString('base64url');
  const dashboard = await startDashboard({ password, port, receiver: { configDir } });
  console.log(`${dashboard.url} shows ${configDir}; press Ctrl-C to stop`);
  if (!process.env['DASHBOARD_PASSWORD']) console.log(`The password is ${password}, with any user name`);
  await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  await dashboard.close();
}

const { values, positionals } = readArgs(usage, {
  allowPositionals: true,
  options: { once: { type: 'boolean', default: false }, port: { type: 'string', default: '6052' } },
});
const [directory] = positionals;

try {
  if (values.once && positionals.length === 0) await showOnce();
  else if (directory !== undefined && positionals.length === 1 && !values.once)
    await serve(directory, portOf('port', values.port));
  else throw new Error(usage);
} catch (error) {
  console.error(
    isReceiverError(error) || (error as Error).message === usage ? (error as Error).message : error,
  );
  process.exitCode = 1;
}
