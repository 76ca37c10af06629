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
import { parseArgs } from 'node:util';

import { ReceiverError, quote } from '../errors.js';
import { findEsphome } from '../esphome/command.js';
import { createReceiver, type Receiver } from '../koa/plugin.js';
import { oneTimeKeyMs } from '../peers/one-time-key.js';
import { jsonReport, textReport, type ServeReport, stderrLog } from './report.js';

export const serveUsage = `  serve DIR [--port 6055] [--host 0.0.0.0] [--esphome CMD] [--take-over DIR]
        [--connect-back] [--announce] [--admin PORT] [--json]
            a build server for other dashboards; DIR keeps its key, peers and builds.
            --take-over: go on with the key and the peers of a Device Builder there
            --connect-back: call dashboards that stay away, so that they learn a new address of this server
            --announce: tell the local network by mDNS; needs the package bonjour-service
            --admin: the admin routes at this port of 127.0.0.1, to pair more dashboards, to revoke, to free disk space`;

/** Runs until SIGTERM or SIGINT; resolves to the exit code. */
export async function serve(args: string[]): Promise<number> {
  const { directory, port, host, esphome, takeOver, connectBack, announce, json, admin } =
    readArguments(args);
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

function readArguments(args: string[]): {
  directory: string;
  port: number;
  host: string;
  esphome: string | undefined;
  takeOver: string | undefined;
  connectBack: boolean;
  announce: boolean;
  admin: number | undefined;
  json: boolean;
} {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      port: { type: 'string', default: '6055' },
      host: { type: 'string', default: '0.0.0.0' },
      esphome: { type: 'string' },
      'take-over': { type: 'string' },
      'connect-back': { type: 'boolean', default: false },
      announce: { type: 'boolean', default: false },
      admin: { type: 'string' },
      json: { type: 'boolean', default: false },
    },
  });
  const [directory, ...more] = positionals;
  if (directory === undefined || more.length > 0)
    throw new ReceiverError('OPTIONS', 'serve needs one directory');
  const port = portOf(values.port);
  const admin = values.admin === undefined ? undefined : portOf(values.admin);
  const { host, esphome, announce, json, 'take-over': takeOver, 'connect-back': connectBack } = values;
  return { directory, port, host, esphome, takeOver, connectBack, announce, admin, json };
}

function portOf(text: string): number {
  const port = Number(text);
  if (/^\d+$/.test(text) && port <= 65_535) return port;
  throw new ReceiverError('OPTIONS', `the port ${quote(text)} is no number from 0 to 65535`);
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
