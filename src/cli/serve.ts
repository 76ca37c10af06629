/**
 * `serve`: a build server without a screen, which runs until a signal. Without paired dashboards it prints a key that
 * pairs exactly one within 15 minutes, and exits when that time has passed, like Device Builder: a server that waits for
 * its first peer forever is a forgotten open door.
 */
import { Console } from 'node:console';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:http';

import { freeSpaceBytes } from '../disk/reserve.js';
import { isReceiverError, messageOf, quote, ReceiverError, systemCode } from '../errors.js';
import { findEsphome, type EsphomeCommand } from '../esphome/command.js';
import { probeVersion } from '../esphome/version.js';
import { bind } from '../koa/listen.js';
import { createReceiver, type Receiver } from '../koa/plugin.js';
import { oneTimeKeyMs } from '../peers/one-time-key.js';
import { defaultSlots, machineOf } from '../process/machine.js';
import { findPython, pythonOf } from '../provision/python.js';
import { readFlags } from './flags.js';
import { jsonReport, textReport, type MachineFacts, type ServeReport, stderrLog } from './report.js';

/** Runs until SIGTERM or SIGINT; resolves to the exit code. */
export async function serve(args: string[]): Promise<number> {
  const { directory, port, host, json, admin, ...options } = readFlags(args);
  const { esphome, announce } = options;
  // The reader of the output can leave (`| head`); the builds go on without it.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  // bonjour-service prints on the console, and stdout is only for the reports of `serve`.
  if (announce) globalThis.console = new Console(process.stderr);
  await mkdir(directory, { recursive: true }).catch((cause: unknown) => {
    if (systemCode(cause) !== 'EEXIST') throw cause;
    const message = 'invalid arguments: expected a directory, got a file';
    throw new ReceiverError('OPTIONS', message, { file: directory }, { cause });
  });
  const found = await findEsphome({ esphome, environment: process.env });
  if (found === null) {
    const command = esphome ?? process.env['ESPHOME_COMMAND'];
    const what = command === undefined ? 'no esphome on the PATH' : `${quote(command)} is not a program`;
    throw new ReceiverError('PROVISION', `ESPHome not found: ${what}; set --esphome to its command`);
  }
  const receiver = await createReceiver({
    ...options,
    configDir: directory,
    pairingByKey: true,
    log: stderrLog,
  });
  const ending = new AbortController();
  let closeAdmin = async (): Promise<void> => {};
  const report = json ? jsonReport(process.stdout) : textReport(process.stdout);
  const finding = machineFacts(found, directory, report, ending.signal);
  const stopped = signalled();
  try {
    const bound = await receiver.listen(port, host);
    if (admin !== undefined) closeAdmin = await serveAdmin(receiver, admin);
    // A program that hangs delays the facts by 15 s.
    const facts = await Promise.race([finding, stopped]);
    if (typeof facts === 'number') return facts;
    const furtherLanes = receiver.lanes().slice(1);
    report.listening({ host, port: bound, pin: receiver.pin, ...facts, furtherLanes });
    receiver.subscribe(report.event);
    return await Promise.race([stopped, pairedInTime(receiver, report, ending.signal)]);
  } finally {
    ending.abort();
    await receiver.close();
    await closeAdmin();
  }
}

/** The facts that decide which builds succeed here. Warns of an ESPHome that does not run. Never rejects. */
async function machineFacts(
  command: EsphomeCommand,
  directory: string,
  report: ServeReport,
  signal: AbortSignal,
): Promise<MachineFacts> {
  const probeEnv = { PATH: process.env['PATH'] ?? '', HOME: directory, PYTHONNOUSERSITE: '1' };
  const [esphome, python, freeBytes] = await Promise.all([
    probeVersion(command, { env: probeEnv, signal }).catch((error: unknown) => {
      if (!signal.aborted) report.warning(`${messageOf(error)}: ${lastLine(error)}`);
      return null;
    }),
    pythonOf(command)
      .then((first) => findPython({ first, signal }))
      .then(({ version }) => version)
      .catch(() => null),
    freeSpaceBytes(directory).catch(() => null),
  ]);
  return { esphome, python, slots: defaultSlots(machineOf()), freeBytes };
}

/** The last thing that the program printed, or why it could not be started. */
function lastLine(error: unknown): string {
  const { stderr, error: reason } = isReceiverError(error) ? error.facts : {};
  const text = [stderr, reason].find((each) => typeof each === 'string' && each.trim() !== '');
  return quote(typeof text === 'string' ? (text.trim().split('\n').at(-1) ?? '') : 'no output');
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
