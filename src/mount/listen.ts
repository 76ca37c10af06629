/**
 * The peer link on a port of its own, as the original build server has it: one path, everything else is 404.
 */
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

import { ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { HandleUpgrade } from './upgrade.js';

const headersTimeoutMs = 10_000;

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
  /** Raw sockets, of strangers and peers together; the link has finer limits for those that speak. */
  readonly maxSockets: number;
  readonly handleUpgrade: HandleUpgrade;
  readonly log: Log;
}

/** Binds `host:port`; port 0 takes a free one. Throws `STATE` when the address is taken or not to be had. */
export async function listenForPeers({
  port,
  host,
  maxSockets,
  handleUpgrade,
  log,
}: ListenOptions): Promise<Listener> {
  const server = createServer({ headersTimeout: headersTimeoutMs }, (_request, response) => {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('Not found\n');
  });
  server.maxConnections = maxSockets;
  // After an upgrade a socket is no concern of the HTTP server's, which then would wait for it for ever.
  const open = new Set<Socket>();
  server.on('connection', (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
  });
  server.on('upgrade', (request, socket, head) => {
    if (handleUpgrade(request, socket, head)) return;
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
        for (const socket of open) socket.destroy();
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
