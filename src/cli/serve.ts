/**
 * `serve`: a build server without a screen, ended by a signal.
 *
 * With nobody paired it prints a key that pairs exactly one dashboard within 15 minutes, and ends when that time
 * lapses, as the original does: a server that waits for ever for its first peer is a door that somebody forgot.
 */
import { Console } from 'node:console';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';

import { ReceiverError, quote } from '../errors.js';
import { findEsphome } from '../esphome/command.js';
import { createReceiver, type Receiver } from '../koa/plugin.js';
import { oneTimeKeyMs } from '../peers/one-time-key.js';
import { readFlags } from './flags.js';
import { jsonReport, textReport, type ServeReport, stderrLog } from './report.js';

/** Runs until SIGTERM or SIGINT; resolves to the exit code. */
export async function serve(args: string[]): Promise<number> {
  const { directory, port, host, esphome, takeOver, connectBack, announce, json, admin } = readFlags(args);
  // The library of the announcement prints on the console, and stdout is for what `serve` says.
  if (announce) globalThis.console = new Console(process.stderr);
  await mkdir(directory, { recursive: true });
  if ((await findEsphome({ esphome, environment: process.env })) === null) {
    const wish = esphome ?? process.env['ESPHOME_COMMAND'];
    const what = wish === undefined ? 'no esphome is on the PATH' : `${quote(wish)} is no program`;
    throw new ReceiverError('PROVISION', `${what}: a build server needs one, see --esphome`);
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

/** Resolves to 1 when nobody is paired and the key lapses; never otherwise. */
function pairedInTime(receiver: Receiver, report: ServeReport, ending: AbortSignal): Promise<number> {
  return new Promise((resolve) => {
    if (receiver.peers.list().length > 0) return;
    receiver.pairing.armOneTimeKey((key) => report.pairingKey(key, oneTimeKeyMs));
    receiver.subscribe((event) => {
      if (event.type !== 'window' || event.isOpen || receiver.peers.list().length > 0) return;
      if (ending.aborted) return;
      report.lapsed();
      resolve(1);
    });
  });
}

/**
 * The admin routes of a build server that has no dashboard, at a port of this machine alone: without them nobody could
 * pair a second dashboard, revoke one, or see what fills the disk. Koa is loaded for it and not before.
 */

/** Resolves, when it listens, to what ends it. Throws `STATE` for a port that is taken, or without Koa. */
async function serveAdmin(receiver: Receiver, port: number): Promise<() => Promise<void>> {
  const { default: Koa } = await import('koa').catch((cause: unknown) => {
    throw new ReceiverError('STATE', '--admin needs the package koa', {}, { cause });
  });
  const app = new Koa();
  // The log of the receiver says what goes wrong in it.
  app.silent = true;
  app.use(receiver.routes());
  const answer = app.callback();
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new ReceiverError('STATE', `the port ${port} of this machine cannot be bound`, { port }, { cause }),
      );
    });
    server.listen(port, '127.0.0.1', resolve);
  });
  return () =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
}
