/**
 * The process that prints: the receiver's link over jobs that do nothing but print, or the bare loop that encrypts and
 * sends the same frames. Each follower is a peer with a job of its own.
 */
import { createCipheriv } from 'node:crypto';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';

import { WebSocketServer, type WebSocket } from 'ws';

import { systemClock } from '../../src/async/clock.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { listenForPeers, createUpgrade } from '../../src/koa/listen.js';
import { silentLog } from '../../src/log.js';
import { createPaths } from '../../src/paths/index.js';
import { loadIdentity } from '../../src/peers/identity.js';
import { createPairingService } from '../../src/peers/pairing.js';
import { openPeerTable } from '../../src/peers/peers.js';
import type { Transport } from '../../src/protocol/transport.js';
import { createPathStripper } from '../../src/server/outbox.js';
import { createPeerServer } from '../../src/server/peer-server.js';
import type { SessionJobs } from '../../src/server/ports.js';
import { createSessions } from '../../src/server/sessions.js';
import { exampleRecord } from '../../src/testing/index.js';
import { followerId, followerIdentity } from './follower.js';
import { frameOf, jobId, lineOf } from './lines.js';
import { defaultOptions } from '../../test/support/options.js';

export interface Printing {
  readonly lines: number;
  readonly followers: number;
}

export type FromPrinter = { readonly port: number } | { readonly printed: true };

const host = '127.0.0.1';
const maxFollowers = 20;
/** As a compile is read, so that others have their turn. */
const linesPerTurn = 200;
const lowWaterBytes = 64 * 1024;
const [kind = '', directory = ''] = process.argv.slice(2);

type Print = (printing: Printing) => Promise<void>;

async function startLink(): Promise<{ readonly port: number; readonly print: Print }> {
  const peers = await openPeerTable(directory, { clock: systemClock, log: silentLog });
  for (let n = 0; n < maxFollowers; n += 1) {
    const nobody = { label: '', labelAuto: false, friendlyName: '', haAddon: false };
    const place = { pairedAt: 0, address: '', connectBackPort: 0 };
    await peers.add({
      dashboardId: followerId(n),
      publicKey: followerIdentity(n).publicKey,
      ...nobody,
      ...place,
    });
  }
  let tell: (event: JobEvent) => void = () => {};
  const { layout } = createPaths({ configDir: directory });
  const link = createPeerServer({
    ...defaultOptions,
    lanes: [{ number: 1, identity: await loadIdentity(directory, silentLog), friendlyName: 'bench' }],
    pairing: createPairingService({ ...defaultOptions, peers, clock: systemClock, log: silentLog }),
    jobs: { ...noJobs, subscribe: (listener) => ((tell = listener), () => {}) },
    openIntake: () => {
      throw new Error('nothing is uploaded here');
    },
    isPlaceSafe: async () => true,
    about: { haAddon: false, pairingByKey: false },
    stripPaths: createPathStripper(layout, [layout.buildsDir, directory, '/home/bench']),
    esphomeVersion: async () => '',
    ...{ sessions: createSessions(systemClock, silentLog), clock: systemClock, log: silentLog },
  });
  const transports: Transport[] = [];
  const accept = (transport: Transport): void => {
    transports.push(transport);
    link.accept(transport);
  };
  const { port } = await listenForPeers({
    ...{
      port: 0,
      host,
      connectionLimits: defaultOptions.connectionLimits,
      clock: systemClock,
      log: silentLog,
    },
    handleUpgrade: createUpgrade(accept),
  });
  const jobs = Array.from({ length: maxFollowers }, (_, n) =>
    exampleRecord({ dashboardId: followerId(n), peerJobId: jobId, state: 'running' }),
  );
  return {
    port,
    async print({ lines, followers }) {
      const printing = jobs.slice(0, followers);
      for (let n = 0; n < lines; n += 1) {
        const line = lineOf(n);
        for (const job of printing) tell({ type: 'output', job, line });
        if (n % linesPerTurn !== linesPerTurn - 1) continue;
        await nextTurn();
        // A compile would not wait, and lines would be lost; here it is the cost of a line that counts.
        for (const transport of transports) await transport.drained(lowWaterBytes);
      }
    },
  };
}

const noJobs: SessionJobs = {
  submit() {
    throw new Error('nothing is built here');
  },
  cancel: () => false,
  cancelByPeer: () => false,
  find: () => undefined,
  queueStatus: () => ({ idle: true, running: false, queueDepth: 0, freeSlots: 1 }),
  subscribe: () => () => {},
  openArtifacts: async () => {
    throw new Error('there are no artifacts');
  },
};

async function startBare(): Promise<{ readonly port: number; readonly print: Print }> {
  const server = new WebSocketServer({ host, port: 0, perMessageDeflate: false });
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async print({ lines }) {
      const senders = [...server.clients].map(sender);
      for (let n = 0; n < lines; n += 1) {
        const line = lineOf(n);
        for (const send of senders) await send(line);
      }
    },
  };
}

/** Encrypts and sends, and waits while more than a little has not left. */
function sender(socket: WebSocket): (line: string) => Promise<void> | undefined {
  const key = Buffer.alloc(32, 9);
  const nonce = Buffer.alloc(12);
  let count = 0;
  return (line) => {
    nonce.writeUInt32LE((count += 1), 4);
    const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: 16 });
    const body = cipher.update(JSON.stringify(frameOf(line)), 'utf8');
    cipher.final();
    const message = Buffer.concat([body, cipher.getAuthTag()]);
    if (socket.bufferedAmount > lowWaterBytes) {
      return new Promise((resolve) => socket.send(message, () => resolve()));
    }
    socket.send(message);
    return undefined;
  };
}

function answer(message: FromPrinter): void {
  process.send?.(message);
}

const { port, print } = await (kind === 'link' ? startLink() : startBare());
process.on('message', (printing) => {
  void print(printing as Printing).then(() => answer({ printed: true }));
});
process.on('disconnect', () => process.exit());
answer({ port });
