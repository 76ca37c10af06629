/**
 * A `ws` socket as the link's transport. The one place where the two meet.
 *
 * A message that arrives before the link listens is kept; koa-websocket on its own loses it, and the handshake
 * then waits for ever. An error of the socket is an end like any other: `ws` throws it when nobody listens, and
 * a stranger's broken frame must not stop the host's process.
 */
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';

import type * as ws from 'ws';

import { onAbort } from '../async/abort.js';
import { ReceiverError } from '../errors.js';
import type { Transport, TransportEvents } from '../protocol/transport.js';

/** The path of the peer link, fixed by the original client (Device Builder 1.26). */
export const peerLinkPath = '/remote-build/peer-link';

/**
 * The library `ws`, by `require`: a start takes 15 % less than through its ES module, for which Node reads each of the
 * files twice, once for the names that it exports. Types come from `ws` itself.
 */
const { WebSocket, WebSocketServer } = createRequire(import.meta.url)('ws') as typeof ws;
export { WebSocketServer };

/** The stream below a WebSocket. */
export type Wire = Pick<Duplex, 'cork' | 'uncork'>;

/**
 * Takes the socket over. It must be open, or about to be. With its `wire`, what is sent in one turn leaves together: a
 * compiler's lines are short, and a call to the system for each would cost more than all else that is done with it.
 */
export function wsTransport(socket: ws.WebSocket, remoteAddress: string, wire?: Wire): Transport {
  const kept: { data: ws.RawData; binary: boolean }[] = [];
  let events: TransportEvents | null = null;
  let ended = false;
  let paused = false;
  let corked = false;
  const draining = new Set<{ readonly maxBytes: number; readonly done: () => void }>();

  /** Runs whenever a message has left, or the socket has. */
  function checkDrained(): void {
    for (const waiter of draining) {
      if (!ended && socket.bufferedAmount > waiter.maxBytes) continue;
      draining.delete(waiter);
      waiter.done();
    }
  }

  function cork(): void {
    if (wire === undefined || corked) return;
    corked = true;
    wire.cork();
    process.nextTick(() => {
      corked = false;
      wire.uncork();
    });
  }

  function deliver(data: ws.RawData, binary: boolean): void {
    if (binary) events?.message(toBuffer(data));
    else events?.text();
  }

  socket.on('message', (data: ws.RawData, binary: boolean) => {
    if (events === null) {
      kept.push({ data, binary });
      socket.pause();
    } else {
      deliver(data, binary);
    }
  });
  socket.on('error', () => socket.terminate());
  socket.on('close', () => {
    ended = true;
    checkDrained();
    events?.closed();
  });

  return {
    remoteAddress: remoteAddress.replace(/^::ffff:/i, ''),
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    start(listener) {
      setImmediate(() => {
        events = listener;
        for (const { data, binary } of kept.splice(0)) deliver(data, binary);
        if (ended) listener.closed();
        else if (!paused && socket.readyState === socket.OPEN) socket.resume();
      });
    },
    send(data) {
      if (socket.readyState !== socket.OPEN) return;
      cork();
      socket.send(data, { binary: true }, checkDrained);
    },
    drained(maxBytes) {
      if (ended || socket.bufferedAmount <= maxBytes) return Promise.resolve();
      return new Promise((done) => draining.add({ maxBytes, done }));
    },
    pause() {
      paused = true;
      if (socket.readyState === socket.OPEN) socket.pause();
    },
    resume() {
      paused = false;
      if (socket.readyState === socket.OPEN) socket.resume();
    },
    close(code = 1000) {
      socket.resume();
      socket.close(code);
    },
    destroy() {
      socket.terminate();
    },
  };
}

function toBuffer(data: ws.RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}

/** Opens a connection to a receiver: the client's way to a transport. Kept here because it needs `ws`. */
const connectTimeoutMs = 10_000;
const maxMessageBytes = 65_535;

export interface Where {
  readonly host: string;
  readonly port: number;
}

export interface DialOptions {
  /** How long the connection may take, in milliseconds. Default: 10,000. */
  readonly timeoutMs?: number;
  /** The address of this machine that the connection comes from. Default: what the system chooses. */
  readonly localAddress?: string | undefined;
  /** Ends the attempt; a connection that is open already is not touched. */
  readonly signal?: AbortSignal;
}

/**
 * Connects to the peer link of a receiver. Throws `PROTOCOL` when nobody answers, or not as a receiver, and `CANCELLED`
 * on abort.
 */
export function dial({ host, port }: Where, options: DialOptions = {}): Promise<Transport> {
  const { timeoutMs = connectTimeoutMs, localAddress, signal } = options;
  const address = host.includes(':') ? `[${host}]` : host;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) throw new ReceiverError('CANCELLED', 'the connection was cancelled');
    const socket = new WebSocket(`ws://${address}:${port}${peerLinkPath}`, {
      perMessageDeflate: false,
      maxPayload: maxMessageBytes,
      ...(localAddress !== undefined && { localAddress }),
    });
    const cancel = (): void => socket.terminate();
    const stopListening = onAbort(signal, cancel);
    // The library's own limit begins anew with each byte that comes.
    const timer = setTimeout(cancel, timeoutMs);
    const stopWaiting = (): void => {
      clearTimeout(timer);
      stopListening();
    };
    socket.once('open', () => {
      stopWaiting();
      resolve(wsTransport(socket, host));
    });
    socket.once('error', (cause) => {
      stopWaiting();
      if (signal?.aborted === true) reject(new ReceiverError('CANCELLED', 'the connection was cancelled'));
      else reject(new ReceiverError('PROTOCOL', 'no receiver answered', { host, port }, { cause }));
    });
  });
}

/**
 * The address from which somebody who is to find a listener at `bound` must be called, because he looks for it where the
 * call comes from. Undefined when the system's choice is as good: all addresses are bound, or `to` is of the other family.
 */
export function callFrom(bound: string, to: string): string | undefined {
  const family = isIP(bound);
  const isAny = /^[0:.]+$/.test(bound);
  return family !== 0 && family === isIP(to) && !isAny ? bound : undefined;
}
