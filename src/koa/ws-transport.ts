/**
 * Adapts a `ws` socket to the peer link's transport. Messages that arrive before the link listens are kept; koa-websocket
 * alone loses them, and the handshake then waits forever. Each connection gets one message per turn of the event loop: a
 * single read can hold thousands of small ones, which would stop all other work for seconds. A socket error closes the
 * connection: unhandled, `ws` throws it, and a stranger's malformed frame would end the host's process.
 */
import { createRequire } from 'node:module';
import type { Duplex } from 'node:stream';

import type * as ws from 'ws';

import { createCondition } from '../async/signals.js';
import type { Transport, TransportEvents } from '../protocol/transport.js';

/** The path of the peer link, fixed by Device Builder 1.26. */
export const peerLinkPath = '/remote-build/peer-link';

/**
 * By `require`, which makes a start 15 % faster: for the ES module, Node reads each file twice, once for its exported
 * names.
 */
const library = createRequire(import.meta.url)('ws') as typeof ws;

/** @internal */
export const { WebSocket, WebSocketServer } = library;

/** Without the second, `ws` itself handles all pings and pongs of one read in one turn of the event loop. */
export const messageByMessage = { perMessageDeflate: false, allowSynchronousEvents: false } as const;

/** The stream below a WebSocket. */
export type Wire = Pick<Duplex, 'cork' | 'uncork'>;

/**
 * Takes over a socket that is open or opening. With `wire`, all messages sent in one tick leave in one write: a compiler's
 * lines are short, and a system call per line would cost more than all other work on it.
 *
 * @internal
 */
export function wsTransport(socket: ws.WebSocket, remoteAddress: string, wire?: Wire): Transport {
  /** What was read and must wait: for `start`, for `resume`, or for the next turn. */
  const kept: { data: ws.RawData; binary: boolean }[] = [];
  let events: TransportEvents | null = null;
  let ended = false;
  let closing = false;
  let paused = false;
  /** Whether this turn has had its message. */
  let isTurnOver = false;
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

  function deliverInTurn(data: ws.RawData, binary: boolean): void {
    isTurnOver = true;
    setImmediate(nextTurn);
    deliver(data, binary);
  }

  function nextTurn(): void {
    isTurnOver = false;
    if (events === null || paused || ended) return;
    const first = kept.shift();
    if (first !== undefined) deliverInTurn(first.data, first.binary);
    else if (socket.isPaused && socket.readyState === socket.OPEN) socket.resume();
  }

  socket.on('message', (data: ws.RawData, binary: boolean) => {
    if (closing) return;
    if (events !== null && !paused && !isTurnOver && kept.length === 0) return deliverInTurn(data, binary);
    kept.push({ data, binary });
    if (socket.readyState === socket.OPEN) socket.pause();
  });
  socket.on('error', () => socket.terminate());
  socket.on('close', () => {
    ended = true;
    wake();
    if (events !== null) end();
  });

  function end(): void {
    for (const { data, binary } of kept.splice(0)) deliver(data, binary);
    events?.closed();
  }

  return {
    remoteAddress: remoteAddress.replace(/^::ffff:/i, ''),
    get bufferedBytes() {
      return socket.bufferedAmount;
    },
    start(listener) {
      setImmediate(() => {
        events = listener;
        if (ended) end();
        else nextTurn();
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
      if (!isTurnOver) setImmediate(nextTurn);
      isTurnOver = true;
    },
    close(code = 1000) {
      closing = true;
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
