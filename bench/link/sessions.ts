/**
 * What a thousand paired dashboards that do nothing cost: memory of the answering process for each, after a collection,
 * beside as many sockets of `ws` behind which there is nothing.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { WebSocket } from 'ws';

import { initiate } from '../../src/protocol/handshake.js';
import { dial } from '../../src/koa/offloader.js';
import { dashboardId } from '../../src/paths/index.js';
import { identityOf, type Identity } from '../../src/peers/identity.js';
import { newRow, type Row as PeerRow } from '../../src/peers/peer-row.js';
import { silentLog } from '../../src/log.js';
import { loadIdentity } from '../../src/peers/identity.js';
import { peersFile } from '../../src/peers/peers.js';
import type { Cleanups } from '../../test/support/temp-dir.js';
import type { Row } from '../transfer/table.js';
import { host, startServer, type Server } from './servers.js';

const sessions = 1_000;
/** First as many come and go, so that what is loaded and compiled once is none of the measurement. */
const warmUp = 200;
const atOnce = 20;
const kibibyte = 1024;

type Close = () => void;

export async function measureSessions(t: Cleanups, directory: string): Promise<Row[]> {
  const stateDir = join(directory, '.esphome-receiver');
  await mkdir(stateDir);
  const peers = Array.from({ length: sessions }, (_, n) => peerRow(n));
  // A receiver with peers and without its key does not start.
  await loadIdentity(stateDir, silentLog);
  await writeFile(join(stateDir, peersFile), JSON.stringify({ version: 1, peers }));
  const receiver = await startServer(t, 'receiver', directory);
  const sockets = await startServer(t, 'sockets', directory);
  const ours = await memoryOfEach(receiver, openSession);
  const bare = await memoryOfEach(sockets, openSocket);
  const row = (key: keyof typeof ours): Pick<Row, 'ours' | 'bare' | 'ratio'> => ({
    ...{ ours: ours[key] / kibibyte, bare: bare[key] / kibibyte, ratio: ours[key] / bare[key] },
  });
  const limited = { unit: 'KiB', limit: { atMost: 40 } } as const;
  return [
    { ...row('resident'), ...limited, what: 'resident memory of an idle session' },
    { ...row('heap'), ...limited, what: 'objects and buffers of an idle session' },
  ];
}

async function memoryOfEach(
  server: Server,
  open: (port: number, n: number) => Promise<Close>,
): Promise<{ resident: number; heap: number }> {
  const closes = await openMany(warmUp, (n) => open(server.port, n));
  for (const close of closes) close();
  const before = await settled(server);
  const opened = await openMany(sessions, (n) => open(server.port, n));
  const after = await settled(server);
  for (const close of opened) close();
  return {
    resident: (after.resident - before.resident) / sessions,
    heap: (after.heap - before.heap) / sessions,
  };
}

async function openMany(count: number, open: (n: number) => Promise<Close>): Promise<Close[]> {
  const closes: Close[] = [];
  for (let n = 0; n < count; n += atOnce) {
    closes.push(...(await Promise.all(Array.from({ length: atOnce }, (_, k) => open(n + k)))));
  }
  return closes;
}

/** Ends of connections and collections take some turns until nothing becomes less. */
async function settled(server: Server): ReturnType<Server['memory']> {
  let last = await server.memory();
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 500));
    const now = await server.memory();
    if (now.heap > 0.995 * last.heap) return now;
    last = now;
  }
}

function identity(n: number): Identity {
  const key = Buffer.alloc(32, 3);
  key.writeUInt32LE(n, 8);
  return identityOf(key);
}

function idOf(n: number): string {
  return `bench-${n}`.padEnd(32, '-');
}

function peerRow(n: number): PeerRow {
  return newRow({
    ...{
      dashboardId: dashboardId(idOf(n)),
      publicKey: identity(n).publicKey,
      label: 'bench',
      labelAuto: true,
    },
    ...{ pairedAt: 1, address: host, connectBackPort: 0, friendlyName: '', haAddon: false },
  });
}

async function openSession(port: number, n: number): Promise<Close> {
  const { answer, channel } = await initiate(await dial({ host, port }), identity(n), {
    intent: 'peer_link',
    hello: { dashboardId: idOf(n) },
  });
  if (answer.intent_response !== 'ok') throw new Error(`the answer is ${answer.intent_response}`);
  const first = new Promise<Close>((resolve) =>
    channel.open({
      // The state of the queue, which is the beginning of the session.
      frame: () => resolve(() => channel.close()),
      malformed: () => channel.close(),
      closed() {},
    }),
  );
  return first;
}

function openSocket(port: number): Promise<Close> {
  const socket = new WebSocket(`ws://${host}:${port}/`, { perMessageDeflate: false });
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(() => socket.close()));
    socket.once('error', reject);
  });
}
