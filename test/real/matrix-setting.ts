/** A receiver on one port that can be stopped and started again, and dashboards that are paired with it. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { createReceiver, type JobView, type Receiver, type ReceiverOptions } from '../../src/index.js';
import { startChild, type Child } from '../support/child.js';
import { freePort } from '../support/free-port.js';
import { recordsIn } from '../support/killed/ledger.js';
import { assertNothingLeft } from '../support/killed/leftovers.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { startOffloader, type Offloader } from './device-builder.js';
import { realEsphome, type OtherDeviceBuilder } from './support.js';

const host = '127.0.0.1';
const lockStaleMs = 2_000;
const program = fileURLToPath(new URL('../support/receiver-program.js', import.meta.url));

export interface Station {
  readonly port: number;
  readonly configDir: string;
  /** The one that runs now. */
  receiver: Receiver;
  start(more?: Partial<ReceiverOptions>): Promise<Receiver>;
  /** The same as a program of its own, which can be killed. Not while another one runs. */
  startProgram(): Promise<Child>;
  /** Of the job that a peer knows by this id, whoever runs it; undefined when there is no record of it. */
  stateOnDisk(peerJobId: string): Promise<string | undefined>;
  newestJob(file?: string): JobView;
  /** Closes the receiver; nothing of it or of a build may be left then. */
  close(): Promise<void>;
}

export async function openStation(t: Cleanups, options: Partial<ReceiverOptions> = {}): Promise<Station> {
  const [esphome] = await realEsphome();
  const configDir = join(await tempDir(t), 'config');
  await mkdir(configDir);
  const port = await freePort();
  async function start(more: Partial<ReceiverOptions> = {}): Promise<Receiver> {
    const own = { configDir, esphome, slots: 2, lockStaleMs, ...options, ...more };
    const receiver = await createReceiver(own);
    assert.equal(await receiver.listen(port, host), port);
    station.receiver = receiver;
    return receiver;
  }
  const station: Station = {
    ...{ port, configDir, start },
    async stateOnDisk(id) {
      const receiverDir = join(configDir, '.esphome/.remote_builds/.receiver');
      const records = await recordsIn(receiverDir, await readdir(join(receiverDir, 'jobs')));
      return records.find(({ peerJobId }) => peerJobId === id)?.state;
    },
    startProgram: () => startProgram(t, configDir, port),
    receiver: undefined as never,
    newestJob(file) {
      const job = station.receiver.jobs.list().findLast((each) => file === undefined || each.file === file);
      return job ?? assert.fail('there is no such job');
    },
    async close() {
      await station.receiver.close();
      await assertNothingLeft(configDir);
    },
  };
  await start();
  t.after(() => station.receiver.close());
  return station;
}

async function startProgram(t: Cleanups, configDir: string, port: number): Promise<Child> {
  const words = [configDir, String(lockStaleMs), '2', '', String(port), ...(await realEsphome())];
  const child = await startChild(t, [process.execPath, '--import', 'tsx', program, ...words]);
  await child.printed(/^\{"port".*$/m, { deadlineMs: 30_000 });
  return child;
}

/** A dashboard with these files, not yet paired. */
export async function openDashboard(
  t: Cleanups,
  files: Readonly<Record<string, string>>,
  version?: OtherDeviceBuilder,
): Promise<Offloader> {
  const configDir = join(await tempDir(t), 'dashboard');
  for (const [name, text] of Object.entries(files)) {
    const file = join(configDir, name);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text);
  }
  return startOffloader(t, configDir, version);
}

/** Asks to pair, is approved by a person who looks at the fingerprint, and is connected. */
export async function pair(
  dashboard: Offloader,
  { receiver, port }: Pick<Station, 'receiver' | 'port'>,
): Promise<void> {
  const { pin } = receiver;
  receiver.pairing.open();
  await dashboard.requestPair({ port, pin });
  const [request] = receiver.pairing.requests();
  assert.ok(request);
  await receiver.pairing.approve(request.dashboardId, request.pin);
  receiver.pairing.close();
  await dashboard.waitConnected(pin);
}

/** What its API says of its pairings. */
export async function pairingsOf(dashboard: Offloader): Promise<string[]> {
  return (await dashboard.pairings()).map(({ status, connected, last_connect_error: error }) =>
    [status, connected ? 'connected' : 'away', error].join(' ').trim(),
  );
}

/** Waits until nothing is at that path any more. */
export async function waitGone(path: string, what: string): Promise<void> {
  await waitFor(() => !existsSync(path), { deadlineMs: 60_000, what });
}

/** What the build of a device says when it runs. */
export function speaking(name: string, words: string): string {
  return `esphome:\n  name: ${name}\n  on_boot:\n    then:\n      - logger.log: "${words}"\nhost:\nlogger:\n`;
}

/** The program that a dashboard has got, as text in which words can be found. */
export async function programOf({ configDir }: Offloader, name: string): Promise<string> {
  return readFile(join(configDir, '.esphome/build', name, '.pioenvs', name, 'program'), 'latin1');
}

export async function waitRunning(station: Station, file: string): Promise<JobView> {
  return waitFor(
    async () => {
      const job = station.receiver.jobs.list().findLast((each) => each.file === file);
      return job?.state === 'running' && (await hasBuild(station, job)) ? job : undefined;
    },
    { deadlineMs: 90_000, what: `a compile of ${file}` },
  );
}

async function hasBuild({ receiver }: Station, { configuration }: JobView): Promise<boolean> {
  const names = await readdir(join(receiver.paths.resolveDataDir(configuration), 'build')).catch(() => []);
  return names.length > 0;
}
