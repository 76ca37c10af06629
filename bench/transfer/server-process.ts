/**
 * The process of the receiving side, in one of four kinds: the receiver, which builds every bundle anew; the same with
 * results that are used again; its link alone over an intake that drops everything; the bare loop. Between `begin` and
 * `end` of its parent its meter runs.
 */
import { join } from 'node:path';

import { systemClock } from '../../src/async/clock.js';
import type { BundleIntake } from '../../src/bundles/intake.js';
import { createReceiver } from '../../src/index.js';
import { listenForPeers, createUpgrade } from '../../src/koa/listen.js';
import { silentLog } from '../../src/log.js';
import { loadIdentity } from '../../src/peers/identity.js';
import { createPairingService } from '../../src/peers/pairing.js';
import { openPeerTable } from '../../src/peers/peers.js';
import { createPeerServer } from '../../src/server/peer-server.js';
import type { SessionJobs } from '../../src/server/ports.js';
import { createSessions } from '../../src/server/sessions.js';
import { listenBare } from './bare.js';
import { startMeter, type Measured } from './meter.js';
import { defaultOptions } from '../../test/support/options.js';

export type ServerKind = keyof typeof starts;

/** Where a client finds the server; of the bare loop only the port counts. */
export interface ServerAddress {
  readonly port: number;
  readonly pin: string;
  /** Good for one pairing. */
  readonly pairingKey: string;
  /** Takes bundles and builds nothing. */
  readonly isSink: boolean;
}

export type FromServer = { readonly ready: ServerAddress } | { readonly measured: Measured };

const host = '127.0.0.1';
const [kind = '', directory = '', compiler = ''] = process.argv.slice(2);

function tell(message: FromServer): void {
  process.send?.(message);
}

async function startWhole(resultCache: boolean): Promise<ServerAddress> {
  const receiver = await createReceiver({
    ...{ configDir: directory, esphome: [compiler], pairingByKey: true, resultCache },
  });
  let pairingKey = '';
  receiver.pairing.armOneTimeKey((key) => (pairingKey = key));
  return { port: await receiver.listen(0, host), pin: receiver.pin, pairingKey, isSink: false };
}

async function startSink(): Promise<ServerAddress> {
  const identity = await loadIdentity(join(directory, 'state'), silentLog);
  const peers = await openPeerTable(join(directory, 'state'), { clock: systemClock, log: silentLog });
  const pairing = createPairingService({ ...defaultOptions, peers, clock: systemClock, log: silentLog });
  const link = createPeerServer({
    ...defaultOptions,
    lanes: [{ number: 1, identity, friendlyName: 'bench' }],
    pairing,
    jobs: noJobs,
    openIntake: () => sink,
    isPlaceSafe: async () => true,
    about: { haAddon: false, pairingByKey: true },
    esphomeVersion: async () => '',
    ...{ sessions: createSessions(systemClock, silentLog), clock: systemClock, log: silentLog },
  });
  let pairingKey = '';
  pairing.armOneTimeKey((key) => (pairingKey = key));
  const { port } = await listenForPeers({
    ...{
      port: 0,
      host,
      connectionLimits: defaultOptions.connectionLimits,
      clock: systemClock,
      log: silentLog,
    },
    handleUpgrade: createUpgrade(link.accept),
  });
  return { port, pin: identity.pin, pairingKey, isSink: true };
}

const sink: BundleIntake = {
  write: () => true,
  drain: async () => {},
  finish: async () => {
    throw new Error('the sink keeps nothing');
  },
  abort: async () => {},
};

/** Refuses every job, which tells the client that its bundle is complete. */
const noJobs: SessionJobs = {
  submit() {
    throw new Error('the sink builds nothing');
  },
  cancel: () => false,
  cancelByPeer: () => false,
  find: () => undefined,
  queueStatus: () => ({ idle: true, running: false, queueDepth: 0, freeSlots: 1 }),
  subscribe: () => () => {},
  openArtifacts: async () => {
    throw new Error('the sink has no artifacts');
  },
};

async function startBare(): Promise<ServerAddress> {
  return { port: await listenBare(host), pin: '', pairingKey: '', isSink: true };
}

const starts = {
  whole: () => startWhole(false),
  cached: () => startWhole(true),
  sink: startSink,
  bare: startBare,
};
const meter = startMeter();
process.on('message', (word) => {
  if (word === 'begin') meter.begin();
  else tell({ measured: meter.end() });
});
process.on('disconnect', () => process.exit());
tell({ ready: await starts[kind as ServerKind]() });
