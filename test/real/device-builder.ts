/**
 * Runs the real Device Builder on loopback, as the dashboard that sends builds and as the original receiver, and
 * does with it what a user does. Nothing of it outlives the test: the program forks, so its whole group is ended.
 */
import { join } from 'node:path';

import type { EsphomeCommand } from '../../src/esphome/command.js';
import { type Child, startChild } from '../support/child.js';
import { freePort } from '../support/free-port.js';
import { type Cleanups, tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import {
  connectDashboard,
  type DashboardClient,
  type DashboardJob,
  type Pairing,
} from './device-builder-client.js';
import { otherDeviceBuilder, realDeviceBuilder, type OtherDeviceBuilder } from './support.js';

const startDeadlineMs = 60_000;
const stopDeadlineMs = 20_000;
const connectDeadlineMs = 60_000;
/** The first remote compile after a start is held for 20 s, so that build servers can reconnect. */
const jobDeadlineMs = 400_000;
const host = '127.0.0.1';

export interface Offloader extends DashboardClient {
  readonly configDir: string;
  /** What it printed so far. */
  log(): string;
  /** What a receiver on this machine presents. */
  previewPair(port: number): Promise<{ readonly pin_sha256: string; readonly requires_pairing_key: boolean }>;
  /** Asks for pairing; pending until it is approved there, or approved at once with the right key. */
  requestPair(request: {
    readonly port: number;
    readonly pin: string;
    readonly key?: string;
  }): Promise<Pairing>;
  pairings(): Promise<readonly Pairing[]>;
  /** Waits until the receiver with this pin is connected, and tells how it presents itself. */
  waitConnected(pin: string): Promise<Pairing>;
  unpair(pin: string): Promise<unknown>;
  /** Starts a compile of a YAML of `configDir` and returns the id of its job. */
  compile(configuration: string): Promise<string>;
  compileBulk(configurations: readonly string[]): Promise<unknown>;
  clean(configuration: string): Promise<unknown>;
  cancel(jobId: string): Promise<unknown>;
  job(jobId: string): Promise<DashboardJob>;
  /** Waits until the job has printed what matches, to do something in the middle of it. */
  waitOutput(jobId: string, pattern: RegExp): Promise<RegExpExecArray>;
  /** Waits until the job has ended, whichever way. */
  waitJob(jobId: string): Promise<DashboardJob>;
  /** SIGTERM, and waits for its end. */
  stop(): Promise<unknown>;
}

/** A dashboard over `configDir`, which the caller has filled with YAMLs. Ready for commands when it resolves. */
export async function startOffloader(
  t: Cleanups,
  configDir: string,
  version?: OtherDeviceBuilder,
): Promise<Offloader> {
  const port = await freePort();
  const command = await (version === undefined ? realDeviceBuilder() : otherDeviceBuilder(version));
  const child = await start(t, command, [
    ...['--host', host, '--port', String(port), ...(await remoteBuild()), configDir],
  ]);
  await child.printed(/Running on http:/, { deadlineMs: startDeadlineMs });
  const client = await connectDashboard(t, port);
  const { command: ask } = client;
  const job = (jobId: string): Promise<DashboardJob> => ask('firmware/get_job', { job_id: jobId });
  const pairings = async (): Promise<readonly Pairing[]> =>
    (await ask<{ pairings: readonly Pairing[] }>('remote_build/get_offloader_settings')).pairings;
  return {
    ...client,
    configDir,
    log: child.output,
    previewPair: (receiver) => ask('remote_build/preview_pair', { hostname: host, port: receiver }),
    requestPair: (request) =>
      ask('remote_build/request_pair', {
        hostname: host,
        port: request.port,
        pin_sha256: request.pin,
        receiver_label: 'receiver under test',
        offloader_label: 'real offloader',
        ...(request.key === undefined ? {} : { pairing_key: request.key }),
      }),
    pairings,
    waitConnected: (pin) =>
      waitFor(
        async () => (await pairings()).find((pairing) => pairing.pin_sha256 === pin && pairing.connected),
        {
          deadlineMs: connectDeadlineMs,
          what: 'the connection to the receiver',
        },
      ),
    unpair: (pin) => ask('remote_build/unpair', { pin_sha256: pin }),
    compile: async (configuration) => (await ask<DashboardJob>('firmware/compile', { configuration })).job_id,
    compileBulk: (configurations) => ask('firmware/compile_bulk', { configurations }),
    clean: (configuration) => ask('firmware/clean', { configuration }),
    cancel: (jobId) => ask('firmware/cancel', { job_id: jobId }),
    job,
    waitOutput: (jobId, pattern) =>
      waitFor(() => pattern.exec(client.outputOf(jobId)), {
        deadlineMs: jobDeadlineMs,
        what: `${pattern} in the output of the job`,
      }),
    waitJob: (jobId) =>
      waitFor(
        async () => {
          const state = await job(jobId);
          return state.status === 'queued' || state.status === 'running' ? undefined : state;
        },
        { deadlineMs: jobDeadlineMs, what: 'the end of the job' },
      ),
    stop: () => child.stop({ deadlineMs: stopDeadlineMs }),
  };
}

export interface OriginalReceiver {
  readonly configDir: string;
  readonly port: number;
  readonly pin: string;
  /** Good for one pairing. */
  readonly pairingKey: string;
  log(): string;
  stop(): Promise<unknown>;
}

/** The receiver that Device Builder itself brings, on an empty directory, with its pairing window open. */
export async function startOriginalReceiver(t: Cleanups): Promise<OriginalReceiver> {
  const configDir = await tempDir(t);
  const child = await start(t, await realDeviceBuilder(), [
    '--remote-build-only',
    ...(await remoteBuild()),
    '--allow-any-pairing-source',
    configDir,
  ]);
  const [, pairingKey = ''] = await child.printed(/^ +((?:[A-Z2-9]{4}-){3}[A-Z2-9]{4})$/m, {
    deadlineMs: startDeadlineMs,
  });
  const [, port, pin = ''] = await child.printed(
    /listening on 127\.0\.0\.1:(\d+) \(peer-link pin ([0-9a-f ]+)\)/,
  );
  return {
    configDir,
    port: Number(port),
    pin: pin.replaceAll(' ', ''),
    pairingKey,
    log: child.output,
    stop: () => child.stop({ deadlineMs: stopDeadlineMs }),
  };
}

async function remoteBuild(): Promise<string[]> {
  return ['--remote-build-host', host, '--remote-build-port', String(await freePort())];
}

/** In a home of its own, so that neither settings nor caches of this machine's user take part. */
async function start(t: Cleanups, command: EsphomeCommand, args: readonly string[]): Promise<Child> {
  const home = await tempDir(t);
  return startChild(t, [...command, ...args], {
    env: { ...process.env, HOME: home, XDG_CACHE_HOME: join(home, '.cache') },
  });
}
