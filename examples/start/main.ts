/**
 * The demo of `npm start`, on this machine alone: a Koa dashboard with the receiver mounted, a small client that pairs
 * with it, one real compile, and a run of the compiled program.
 *
 *     npm start -- [--once] [--esphome CMD] [--port 6055] [--dashboard-port 6052]
 *
 * Everything stays below `.work/start`. The next start reuses the compiler and its build caches.
 */
import { once } from 'node:events';
import { cp, mkdir, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import Koa from 'koa';

import { createReceiver, isReceiverError, ReceiverError, type Receiver } from '../../src/index.js';
import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  unpackArtifacts,
  type Offloader,
  type OffloaderSession,
} from '../../src/koa/offloader.js';
import { anEsphome } from './an-esphome.js';
import { runFor } from './run-for.js';
import { say, showBuild } from './screen.js';

const host = '127.0.0.1';
const file = 'kitchen.yaml';
const config = fileURLToPath(new URL(`../configs/${file}`, import.meta.url));
const work = fileURLToPath(new URL('../../.work/start', import.meta.url));
const here = {
  receiver: join(work, 'receiver'),
  offloader: join(work, 'offloader'),
  firmware: join(work, 'firmware'),
};

const { values } = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    esphome: { type: 'string' },
    port: { type: 'string', default: '6055' },
    'dashboard-port': { type: 'string', default: '6052' },
  },
});

async function main(): Promise<void> {
  say('1', 'Looking for ESPHome');
  const esphome = await anEsphome(values.esphome);

  say('2', 'Starting a dashboard with the receiver mounted');
  await mkdir(here.receiver, { recursive: true });
  const receiver = await createReceiver({
    configDir: here.receiver,
    esphome,
    friendlyName: 'demo build server',
  });
  const app = new Koa();
  receiver.mount(app);
  const dashboard = app.listen(wanted(values['dashboard-port']), host);
  try {
    await once(dashboard, 'listening').catch((cause: Error) => {
      throw new ReceiverError('STATE', `the dashboard's port cannot be bound: ${cause.message}`);
    });
    const port = await receiver.listen(wanted(values.port), host);
    console.log(`   peer link on ${host}:${port}, admin routes on http://${urlOf(dashboard.address())}`);
    const offloader = await pair(receiver, port);
    const session = await offloader.openSession({ pin: receiver.pin });
    try {
      await buildAndRun(session);
    } finally {
      await session.close();
    }
    if (values.once) return;
    explain(receiver, port);
    await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  } finally {
    await receiver.close();
    dashboard.close();
    dashboard.closeAllConnections();
  }
}

/** What a user does in two browsers: compare the fingerprint, request pairing, approve. */
async function pair(receiver: Receiver, port: number): Promise<Offloader> {
  say('3', 'Pairing a small client with it');
  const identity = await loadOffloaderIdentity(here.offloader);
  const connect = () => dial({ host, port });
  const offloader = createOffloader({ identity, connect, label: 'demo client', friendlyName: 'demo client' });
  const { pin } = await offloader.preview();
  console.log(
    `   fingerprint at the client ${pin.slice(0, 16)}…, at the server ${receiver.pin.slice(0, 16)}…`,
  );
  receiver.pairing.open();
  if ((await offloader.requestPairing({ pin })) === 'pending') {
    const approved = offloader.waitForApproval({ pin });
    const [request] = receiver.pairing.requests();
    if (request) await receiver.pairing.approve(request.dashboardId, request.pin);
    await approved;
  }
  receiver.pairing.close();
  console.log('   paired');
  return offloader;
}

async function buildAndRun(session: OffloaderSession): Promise<void> {
  say('4', `Sending ${file} and compiling it there`);
  await rm(here.firmware, { recursive: true, force: true });
  await cp(config, join(here.firmware, 'config', file));
  const { bytes } = await makeBundle({ configDir: join(here.firmware, 'config'), file });
  const screen = showBuild();
  const result = await session.build({ file, bundle: bytes, onOutput: screen.line });
  screen.end();
  if (result.status !== 'completed')
    throw new Error(`the build ended as ${result.status}: ${result.errorMessage}`);

  say('5', 'Downloading the firmware');
  const archive = join(here.firmware, 'artifacts.tar.gz');
  await session.saveArtifacts(result.jobId, archive);
  const { firmwarePath, members } = await unpackArtifacts(archive, join(here.firmware, 'artifacts'));
  console.log(`   ${members.join(', ')}`);

  say('6', 'Running the program for two seconds');
  for (const line of await runFor(firmwarePath, 2000)) console.log(`   | ${line}`);
  console.log(`\nThe program: ${firmwarePath}`);
}

function explain(receiver: Receiver, port: number): void {
  receiver.pairing.open();
  console.log(`
The server is still running, with its pairing window open for five minutes. In a real ESPHome Device Builder on this
machine, add a build server at ${host} port ${port}, compare the fingerprint

  ${receiver.pin}

and send the request. This demo approves it as soon as it arrives. Press Ctrl-C to stop the server.`);
  receiver.subscribe((event) => {
    if (event.type === 'requested') {
      const { dashboardId, pin, label } = event.request;
      console.log(`Approving ${JSON.stringify(label)} with the fingerprint ${pin}`);
      receiver.pairing.approve(dashboardId, pin).catch((error: unknown) => console.error(error));
    } else if (event.type === 'state') console.log(`${event.job.file}: ${event.job.state}`);
  });
}

/** With `--once`, any free port will do. */
function wanted(port: string): number {
  return values.once ? 0 : Number(port);
}

function urlOf(address: AddressInfo | string | null): string {
  return typeof address === 'object' && address ? `${host}:${address.port}/esphome-receiver/state` : host;
}

try {
  await main();
} catch (error) {
  if (!isReceiverError(error)) throw error;
  console.error(`\n${error.message}`);
  process.exitCode = 1;
}
