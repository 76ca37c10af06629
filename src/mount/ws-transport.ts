/**
 * A `ws` socket as the link's transport. The one place where the two meet.
 *
 * A message that arrives before the link listens is kept; koa-websocket on its own loses it, and the handshake
 * then waits for ever. An error of the socket is an end like any other: `ws` throws it when nobody listens, and
 * a stranger's broken frame must not stop the host's process.
 */
import type { Duplex } from 'node:stream';

import type { RawData, WebSocket } from 'ws';

import type { Transport, TransportEvents } from '../link/transport.js';

/** The stream below a WebSocket. */
export type Wire = Pick<Duplex, 'cork' | 'uncork'>;

/**
 * Takes the socket over. It must be open, or about to be. With its `wire`, what is sent in one turn leaves together: a
 * compiler's lines are short, and a call to the system for each would cost more than all else that is done with it.
 */
export function wsTransport(socket: WebSocket, remoteAddress: string, wire?: Wire): Transport {
  const kept: { data: RawData; binary: boolean }[] = [];
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

  function deliver(data: RawData, binary: boolean): void {
    if (binary) events?.message(toBuffer(data));
    else events?.text();
  }

  socket.on('message', (data: RawData, binary: boolean) => {
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

function toBuffer(data: RawData): Buffer {
  if (Buffer.isBuffer(data)) return data;
  return Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data);
}
