/**
 * The second process: another dashboard, which wants its devices built elsewhere.
 *
 *     npx tsx examples/pairing/other.ts HOME [--port 6055] [--name NAME] [--as ID]
 *
 * Its key is in HOME. It previews the build server, lets a person compare, requests pairing, waits, connects, sends one
 * tiny configuration, and stays connected until either side closes the session. `--as` uses another dashboard's id.
 * Anybody can do that: an id proves nothing.
 */
import { mkdir, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';

import {
  createOffloader,
  dial,
  isReceiverError,
  loadOffloaderIdentity,
  makeBundle,
  pinOf,
  unpackArtifacts,
  type Offloader,
  type OffloaderSession,
} from 'koa-esphome-receiver/offloader';
import { dashboardId } from 'koa-esphome-receiver/paths';
import { portOf, readArgs } from '../start/read-args.js';
import { endingSignal } from './ending.js';
import { show } from './screen.js';

const usage = 'Usage: other.ts HOME [--port 6055] [--name NAME] [--as ID]';
const host = '127.0.0.1';
const file = 'tiny.yaml';
const yaml = 'esphome:\n  name: tiny\nhost:\n';

/** The receiver's refusals in words for a person. */
const refusals: Readonly<Record<string, string>> = {
  no_pairing_window: 'the pairing window is closed',
  pin_mismatch: 'the server knows a different key for this dashboard id',
  no_approved_peer: 'this dashboard is not approved',
};

const { values, positionals } = readArgs(usage, {
  allowPositionals: true,
  options: {
    port: { type: 'string', default: '6055' },
    name: { type: 'string', default: 'the other dashboard' },
    as: { type: 'string' },
  },
});

const ending = endingSignal();
const keyboard = createInterface({ input: process.stdin });
const typed = keyboard[Symbol.asyncIterator]();
ending.addEventListener('abort', () => keyboard.close());

async function main(home: string | undefined): Promise<void> {
  if (home === undefined) throw new Error(usage);
  const own = await loadOffloaderIdentity(home);
  const identity = values.as === undefined ? own : { ...own, dashboardId: dashboardId(values.as) };
  const port = portOf('port', values.port);
  const connect = () => dial({ host, port });
  const { name } = values;
  const offloader = createOffloader({ identity, connect, label: name, friendlyName: name });

  console.log(`Id: ${identity.dashboardId}`);
  show("This dashboard's own fingerprint", pinOf(identity.publicKey));
  const { pin } = await offloader.preview();
  show(`Fingerprint of the build server at ${host}:${port}`, pin);
  if (!(await isYes('Does its page show the same fingerprint? Type yes to request pairing.'))) return;
  while (!(await hasPaired(offloader, pin))) if (!(await isYes('Type yes to request pairing again.'))) return;
  // From here on a dashboard keeps this pin, and speaks to no other key under this address.
  const session = await offloader.openSession({ pin, signal: ending });
  console.log('Paired and connected.');
  await build(session, home);
  console.log(`Session ended: ${await session.ended}`);
  if (!ending.aborted) await comesBack(offloader, pin);
}

async function isYes(question: string): Promise<boolean> {
  if (ending.aborted) return false;
  console.log(question);
  const { value } = await typed.next();
  return value === 'yes';
}

async function hasPaired(offloader: Offloader, pin: string): Promise<boolean> {
  try {
    if ((await offloader.requestPairing({ pin })) === 'pending') {
      console.log('Requested. The operator of the build server has to approve it now.');
      await offloader.waitForApproval({ pin, signal: ending });
    }
    return true;
  } catch (error) {
    console.log(`Refused: ${refusalOf(error)}.`);
    return false;
  }
}

/** Sends the configuration and fetches what was made of it. */
async function build(session: OffloaderSession, home: string): Promise<void> {
  const configDir = join(home, 'config');
  await mkdir(configDir, { recursive: true });
  await writeFile(join(configDir, file), yaml);
  const { bytes: bundle } = await makeBundle({ configDir, file });
  console.log(`Sent ${file}.`);
  const { status, errorMessage, jobId } = await session.build({ file, bundle });
  if (status !== 'completed') throw new Error(`the build ended as ${status}: ${errorMessage}`);
  const artifacts = await session.downloadArtifacts(jobId);
  const { firmwarePath } = await unpackArtifacts(artifacts.bytes, join(home, 'firmware'));
  const { size } = await stat(firmwarePath);
  console.log(`Firmware: ${basename(firmwarePath)}, ${size} bytes`);
}

/** After a session has ended, a dashboard reconnects, which works as long as it is paired. */
async function comesBack(offloader: Offloader, pin: string): Promise<void> {
  try {
    await (await offloader.openSession({ pin, signal: ending })).close();
    console.log('Reconnecting works: the dashboard is still paired.');
  } catch (error) {
    console.log(`Reconnecting fails: ${refusalOf(error)}.`);
  }
}

/** Rethrows anything that is not a refusal. */
function refusalOf(error: unknown): string {
  if (!isReceiverError(error, 'REJECTED')) throw error;
  const word = error.facts['reason'] ?? error.facts['answer'];
  return refusals[String(word)] ?? error.message;
}

try {
  await main(positionals[0]);
} catch (error) {
  if (!ending.aborted) {
    console.error(
      isReceiverError(error) || (error as Error).message === usage ? (error as Error).message : error,
    );
    process.exitCode = 1;
  }
} finally {
  keyboard.close();
}
