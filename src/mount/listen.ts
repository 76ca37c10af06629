/**
 * The peer link on a port of its own, as the original build server has it: one path, everything else is 404.
 *
 * Nobody is refused for want of room, and nobody stays who asks for no peer link (half-open.ts). Node's own limits would
 * do the opposite: a full `maxConnections` drops the newcomer, and half a request may take minutes.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

import { ReceiverError, systemCode } from '../errors.js';
import type { LeavePlace } from '../link/places.js';
import type { Log } from '../log.js';
import { systemClock } from '../peers/clock.js';
import { createHalfOpen, type HalfOpenLimits } from './half-open.js';
import type { HandleUpgrade } from './upgrade.js';

/** What was really bound. */
export interface Bound {
  readonly port: number;
  /** An IP address, also where a name was asked for. */
  readonly address: string;
}

export interface Listener extends Bound {
  /** Stops listening and drops what is still open. */
  close(): Promise<void>;
}

export interface ListenOptions {
  readonly port: number;
  readonly host: string;
  /** Of sockets before their upgrade; the link has its own for those after it. */
  readonly limits: HalfOpenLimits;
  readonly handleUpgrade: HandleUpgrade;
  readonly log: Log;
}

/** Binds `host:port`; port 0 takes a free one. Throws `STATE` when the address is taken or not to be had. */
export async function listenForPeers({
  port,
  host,
  limits,
  handleUpgrade,
  log,
}: ListenOptions): Promise<Listener> {
  const server = createServer((_request, response) => {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('Not found\n');
  });
  const halfOpen = createHalfOpen(limits, systemClock);
  // After an upgrade a socket is no concern of the HTTP server's, which then would wait for it for ever.
  const open = new Map<Duplex, LeavePlace>();
  server.on('connection', (socket) => {
    const leave = halfOpen.enter(socket.remoteAddress ?? '', () => socket.destroy());
    open.set(socket, leave);
    socket.once('close', () => {
      open.delete(socket);
      leave();
    });
  });
  server.on('upgrade', (request, socket, head) => {
    if (handleUpgrade(request, socket, head)) {
      // One that was refused as no proper WebSocket has its answer, and stays what it was until it is gone.
      if (!socket.writableEnded) open.get(socket)?.();
      return;
    }
    socket.on('error', () => socket.destroy());
    socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n', () => socket.destroy());
  });
  await bind(server, port, host);
  server.on('error', (error) =>
    log.error({ error, host, port }, 'the listener of the peer link has a fault'),
  );
  const { port: boundPort, address } = server.address() as AddressInfo;
  return {
    port: boundPort,
    address,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of open.keys()) socket.destroy();
      }),
  };
}

function bind(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const why = systemCode(cause) === 'EADDRINUSE' ? 'is taken' : 'cannot be bound';
      reject(new ReceiverError('STATE', `the address ${host}:${port} ${why}`, { host, port }, { cause }));
    });
    server.listen(port, host, resolve);
  });
}
