/**
 * The process that answers, in one of four kinds: the receiver; `ws` with nothing but the work of the handshake behind
 * it; `ws` alone; and that work without any socket. It tells what processor time and memory it has used whenever its
 * parent asks.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import { WebSocketServer, type WebSocket } from 'ws';

import type * as built from '../../src/index.js';
import { identityOf } from '../../src/peers/identity.js';
import { standInEsphome } from '../../src/testing/index.js';
import { createBareResponder, keyOf } from './responder.js';
import { replayedKey, transcript } from './transcript.js';

export type ServerKind = keyof typeof starts;

export type ToServer = 'cpu' | 'memory' | { readonly handshakes: number };

/** Milliseconds of all threads. */
export type FromServer = { readonly port: number } | { readonly cpuMs: number } | { readonly memory: Memory };

/** After a collection, in bytes. */
export interface Memory {
  readonly resident: number;
  /** Objects and buffers. */
  readonly heap: number;
}

const host = '127.0.0.1';
const answer = JSON.stringify({
  ...{ intent_response: 'ok', esphome_version: '2026.10.0', auto_provision_supported: false },
  ...{ reset_build_env_supported: true, friendly_name: 'bench', ha_addon: false },
});
const [kind = '', directory = ''] = process.argv.slice(2);
const ownKey = Buffer.alloc(32, 7);
const own = keyOf(ownKey);

/** As it is published: what runs the sources here gives every function a name of its own, which costs time and memory. */
async function startReceiver(): Promise<FromServer> {
  const index = new URL('../../dist/index.js', import.meta.url);
  const { createReceiver } = (await import(index.href)) as typeof built;
  const receiver = await createReceiver({
    ...{ configDir: directory, esphome: standInEsphome, provisionVersions: false },
    // All of it comes from one address.
    connectionLimits: {
      ...{ sockets: 8_192, strangers: 4_096, strangersPerAddress: 4_096, handshakesPerSecond: 10_000 },
    },
  });
  return { port: await receiver.listen(0, host) };
}

async function listenBare(serve: (socket: WebSocket) => void): Promise<FromServer> {
  const server = new WebSocketServer({ host, port: 0, perMessageDeflate: false });
  server.on('connection', serve);
  await once(server, 'listening');
  return { port: (server.address() as AddressInfo).port };
}

function answerBare(socket: WebSocket): void {
  const responder = createBareResponder(own);
  socket.once('message', (first: Buffer) => {
    socket.send(responder.first(first));
    socket.once('message', (third: Buffer) => {
      socket.send(responder.third(third, answer));
      socket.close();
    });
  });
}

function runBare(count: number): void {
  const { first, third } = transcript(identityOf(ownKey));
  for (let n = 0; n < count; n += 1) {
    const responder = createBareResponder(own, replayedKey);
    responder.first(first);
    responder.third(third, answer);
  }
}

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

function memory(): Memory {
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  return { resident: rss, heap: heapUsed + external };
}

function reply(word: ToServer): FromServer {
  if (word === 'memory') return { memory: memory() };
  if (word === 'cpu') return { cpuMs: cpuMs() };
  const before = cpuMs();
  runBare(word.handshakes);
  return { cpuMs: cpuMs() - before };
}

const starts = {
  receiver: startReceiver,
  handshakes: () => listenBare(answerBare),
  sockets: () => listenBare((socket) => void socket.on('message', () => {})),
  bare: async (): Promise<FromServer> => ({ port: 0 }),
};
process.on('message', (word: ToServer) => void process.send?.(reply(word)));
process.on('disconnect', () => process.exit());
process.send?.(await starts[kind as ServerKind]());
