/**
 * `serve`: a build server without a screen, which runs until a signal. Without paired dashboards it prints a key that
 * pairs exactly one within 15 minutes, and exits when that time has passed, like Device Builder: a server that waits for
 * its first peer forever is a forgotten open door.
 */
import { Console } from 'node:console';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';

import { ReceiverError, quote } from '../errors.js';
import { findEsphome } from '../esphome/command.js';
import { bind } from '../koa/listen.js';
import { createReceiver, type Receiver } from '../koa/plugin.js';
import { oneTimeKeyMs } from '../peers/one-time-key.js';
import { readFlags } from './flags.js';
import { jsonReport, textReport, type ServeReport, stderrLog } from './report.js';

/** Runs until SIGTERM or SIGINT; resolves to the exit code. */
export async function serve(args: string[]): Promise<number> {
  const { directory, port, host, esphome, takeOver, connectBack, announce, json, admin } = readFlags(args);
  // The reader of the output can leave (`| head`); the builds go on without it.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  // bonjour-service prints on the console, and stdout is only for the reports of `serve`.
  if (announce) globalThis.console = new Console(process.stderr);
  await mkdir(directory, { recursive: true });
  if ((await findEsphome({ esphome, environment: process.env })) === null) {
    const command = esphome ?? process.env['ESPHOME_COMMAND'];
    const what = command === undefined ? 'no esphome on the PATH' : `${quote(command)} is not a program`;
    throw new ReceiverError('PROVISION', `ESPHome not found: ${what}; set --esphome to its command`);
  }
  const receiver = await createReceiver({
    configDir: directory,
    esphome,
    takeOver,
    connectBack,
    announce,
    pairingByKey: true,
    log: stderrLog,
  });
  const ending = new AbortController();
  let closeAdmin = async (): Promise<void> => {};
  const report = json ? jsonReport(process.stdout) : textReport(process.stdout);
  try {
    const bound = await receiver.listen(port, host);
    if (admin !== undefined) closeAdmin = await serveAdmin(receiver, admin);
    report.listening({ host, port: bound, pin: receiver.pin });
    receiver.subscribe(report.event);
    return await Promise.race([signalled(), pairedInTime(receiver, report, ending.signal)]);
  } finally {
    ending.abort();
    await receiver.close();
    await closeAdmin();
  }
}

async function signalled(): Promise<number> {
  await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  return 0;
}

/** Resolves to 1 when the key expires without any paired dashboard; never otherwise. */
function pairedInTime(receiver: Receiver, report: ServeReport, ending: AbortSignal): Promise<number> {
  return new Promise((resolve) => {
    if (receiver.peers.list().length > 0) return;
    receiver.pairing.armOneTimeKey((key) => report.pairingKey(key, oneTimeKeyMs));
    receiver.subscribe((event) => {
      if (ending.aborted || event.type !== 'window' || event.isOpen) return;
      if (receiver.peers.list().length > 0) return;
      report.lapsed();
      resolve(1);
    });
  });
}

/**
 * Serves the admin routes on a loopback port, to pair a second dashboard, revoke one, or see what fills the disk. Koa is
 * loaded only here. Resolves to a function that ends it. Throws `STATE` when the port cannot be bound, or without Koa.
 */
async function serveAdmin(receiver: Receiver, port: number): Promise<() => Promise<void>> {
  const { default: Koa } = await import('koa').catch((cause: unknown) => {
    throw new ReceiverError('STATE', '--admin needs the package koa', {}, { cause });
  });
  const app = new Koa();
  // The receiver's own log has its errors.
  app.silent = true;
  app.use(receiver.routes());
  const answer = app.callback();
  const server = createServer((request, response) => void answer(request, response));
  await bind(server, port, '127.0.0.1');
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}
