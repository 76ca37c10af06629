/**
 * The demo of `npm start`, on this machine alone: a Koa dashboard with the receiver mounted, a small client that pairs
 * with it, one real compile, and a run of the compiled program.
 *
 *     npm start -- [--once] [--esphome CMD] [--port 6055] [--dashboard-port 6052] [--directory DIR]
 *
 * Everything stays below DIR, by default `.work/start`. The next start reuses the compiler and its build caches.
 */
import { once } from 'node:events';
import { cp, mkdir, rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import Koa from 'koa';

import {
  createReceiver,
  isReceiverError,
  pinPictures,
  pinText,
  ReceiverError,
  type Receiver,
} from 'koa-esphome-receiver';
import {
  createOffloader,
  dial,
  loadOffloaderIdentity,
  makeBundle,
  unpackArtifacts,
  type Offloader,
  type OffloaderSession,
} from 'koa-esphome-receiver/offloader';
import { anEsphome } from './an-esphome.js';
import { portOf, readArgs } from './read-args.js';
import { runFor } from './run-for.js';
import { say, showBuild } from './screen.js';

const host = '127.0.0.1';
const file = 'kitchen.yaml';
const config = fileURLToPath(new URL(`../configs/${file}`, import.meta.url));
const usage =
  'Usage: npm start -- [--once] [--esphome CMD] [--port 6055] [--dashboard-port 6052] [--directory DIR]';

const options = {
  once: { type: 'boolean', default: false },
  esphome: { type: 'string' },
  port: { type: 'string', default: '6055' },
  'dashboard-port': { type: 'string', default: '6052' },
  directory: { type: 'string', default: fileURLToPath(new URL('../../.work/start', import.meta.url)) },
} as const;

type Flags = ReturnType<typeof readFlags>;

function readFlags() {
  const { values } = readArgs(usage, { options });
  const work = resolve(values.directory);
  return {
    ...values,
    // With `--once`, any free port will do.
    port: values.once ? 0 : portOf('port', values.port),
    dashboardPort: values.once ? 0 : portOf('dashboard-port', values['dashboard-port']),
    here: {
      receiver: join(work, 'receiver'),
      offloader: join(work, 'offloader'),
      firmware: join(work, 'firmware'),
    },
  };
}

/** Names the flag in the error for a port that cannot be bound. */
async function bound<T>(flag: string, listening: Promise<T>): Promise<T> {
  return listening.catch((cause: Error) => {
    throw new ReceiverError('STATE', `${cause.message}; --${flag} chooses another port`, {}, { cause });
  });
}

async function main(flags: Flags): Promise<void> {
  const { here } = flags;
  say('1', 'Looking for ESPHome');
  const esphome = await anEsphome(flags.esphome);

  say('2', 'Starting a dashboard with the receiver mounted');
  await mkdir(here.receiver, { recursive: true });
  const receiver = await createReceiver({
    configDir: here.receiver,
    esphome,
    friendlyName: 'demo build server',
  });
  const app = new Koa();
  receiver.mount(app);
  const dashboard = app.listen(flags.dashboardPort, host);
  try {
    await bound('dashboard-port', once(dashboard, 'listening'));
    const port = await bound('port', receiver.listen(flags.port, host));
    console.log(`   peer link on ${host}:${port}, admin routes on http://${urlOf(dashboard.address())}`);
    const offloader = await pair(receiver, port, here.offloader);
    const session = await offloader.openSession({ pin: receiver.pin });
    try {
      await buildAndRun(session, here.firmware);
    } finally {
      await session.close();
    }
    if (flags.once) return;
    explain(receiver, port);
    await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
  } finally {
    await receiver.close();
    dashboard.close();
    dashboard.closeAllConnections();
  }
}

/** What a user does in two browsers: compare the fingerprint, request pairing, approve. */
async function pair(receiver: Receiver, port: number, directory: string): Promise<Offloader> {
  say('3', 'Pairing a small client with it');
  const identity = await loadOffloaderIdentity(directory);
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

async function buildAndRun(session: OffloaderSession, directory: string): Promise<void> {
  say('4', `Sending ${file} and compiling it there`);
  await rm(directory, { recursive: true, force: true });
  await cp(config, join(directory, 'config', file));
  const { bytes } = await makeBundle({ configDir: join(directory, 'config'), file });
  const screen = showBuild();
  const result = await session.build({ file, bundle: bytes, onOutput: screen.line });
  screen.end();
  if (result.status !== 'completed')
    throw new Error(`the build ended as ${result.status}: ${result.errorMessage}`);

  say('5', 'Downloading the firmware');
  const archive = join(directory, 'artifacts.tar.gz');
  await session.saveArtifacts(result.jobId, archive);
  const { firmwarePath, members } = await unpackArtifacts(archive, join(directory, 'artifacts'));
  console.log(`   ${members.join(', ')}`);

  say('6', 'Running the program for two seconds');
  for (const line of await runFor(firmwarePath, 2000)) console.log(`   | ${line}`);
  console.log(`\nThe program: ${firmwarePath}`);
}

function explain(receiver: Receiver, port: number): void {
  const pictures = pinPictures(receiver.pin)
    .map(({ emoji }) => emoji)
    .join(' ');
  receiver.pairing.open();
  console.log(`
The server is still running, with its pairing window open for five minutes. In a real ESPHome Device Builder on this
machine, add a build server at ${host} port ${port}, compare the fingerprint

  ${pictures}
  ${pinText(receiver.pin)}

and send the request. This demo approves it as soon as it arrives. Press Ctrl-C to stop the server.`);
  receiver.subscribe((event) => {
    if (event.type === 'requested') {
      const { dashboardId, pin, label } = event.request;
      console.log(`Approving ${JSON.stringify(label)} with the fingerprint ${pin}`);
      receiver.pairing.approve(dashboardId, pin).catch((error: unknown) => console.error(error));
    } else if (event.type === 'state') console.log(`${event.job.file}: ${event.job.state}`);
  });
}

function urlOf(address: AddressInfo | string | null): string {
  return typeof address === 'object' && address ? `${host}:${address.port}/esphome-receiver/state` : host;
}

try {
  await main(readFlags());
} catch (error) {
  if (!isReceiverError(error)) throw error;
  console.error(`\n${error.message}`);
  process.exitCode = 1;
}
