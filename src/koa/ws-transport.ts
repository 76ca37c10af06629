/**
 * Adapts a `ws` socket to the peer link's transport. Messages that arrive before the link listens are kept; koa-websocket
 * alone loses them, and the handshake then waits forever. A socket error closes the connection: unhandled, `ws` throws it,
 * and a stranger's malformed frame would end the host's process.
 */
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';

import type * as ws from 'ws';

import { onAbort } from '../async/abort.js';
import { createCondition } from '../async/condition.js';
import { ReceiverError } from '../errors.js';
import { maxMessageBytes } from '../protocol/noise.js';
import type { Transport, TransportEvents } from '../protocol/transport.js';

/** The path of the peer link, fixed by Device Builder 1.26. */
export const peerLinkPath = '/remote-build/peer-link';

/**
 * By `require`, which makes a start 15 % faster: for the ES module, Node reads each file twice, once for its exported
 * names.
 */
const library = createRequire(import.meta.url)('ws') as typeof ws;
const { WebSocket } = library;

/** @internal */
export const { WebSocketServer } = library;

/** The stream below a WebSocket. */
export type Wire = Pick<Duplex, 'cork' | 'uncork'>;

/**
 * Takes over a socket that is open or opening. With `wire`, all messages sent in one tick leave in one write: a compiler's
 * lines are short, and a system call per line would cost more than all other work on it.
 *
 * @internal
 */
export function wsTransport(socket: ws.WebSocket, remoteAddress: string, wire?: Wire): Transport {
  const kept: { data: ws.RawData; binary: boolean }[] = [];
  let events: TransportEvents | null = null;
  let ended = false;
  let paused = false;
  let corked = false;
  /** Woken whenever a message has left, or the socket has closed. */
  const { until, wake } = createCondition();

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
    wake();
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
      socket.send(data, { binary: true }, wake);
    },
    drained: (maxBytes) => until(() => ended || socket.bufferedAmount <= maxBytes),
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

const connectTimeoutMs = 10_000;

export interface Where {
  readonly host: string;
  readonly port: number;
}

export interface DialOptions {
  /** The longest time for the connection, in milliseconds. Default: 10,000. */
  readonly timeoutMs?: number;
  /** The local address of the connection. Default: chosen by the system. */
  readonly localAddress?: string | undefined;
  /** Cancels the attempt; an open connection is not affected. */
  readonly signal?: AbortSignal;
}

/** Connects to a receiver's peer link. Throws `PROTOCOL` when no receiver answers, `CANCELLED` on abort. */
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
    // The timeout of `ws` restarts with each received byte.
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
 * The local address for a connect-back to `to`: the dashboard looks for the receiver at the address that the call comes
 * from, so it must be `bound`. Undefined leaves the choice to the system: all addresses are bound, or `to` is of the other
 * IP family.
 */
export function callFrom(bound: string, to: string): string | undefined {
  const family = isIP(bound);
  const isAny = /^[0:.]+$/.test(bound);
  return family !== 0 && family === isIP(to) && !isAny ? bound : undefined;
}
