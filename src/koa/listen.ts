/**
 * The peer link on a port of its own, as the original build server has it: one path, everything else is 404.
 *
 * Nobody is refused for want of room, and nobody stays who asks for no peer link (half-open.ts). Node's own limits would
 * do the opposite: a full `maxConnections` drops the newcomer, and half a request may take minutes.
 */
import { createServer, type Server, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

import type { Clock } from '../async/clock.js';
import { ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { ConnectionLimits } from '../options/core-options.js';
import type { Transport } from '../protocol/transport.js';
import { type ReleasePlace, createConnectionPool } from '../server/connection-limits.js';
import { peerLinkPath, wsTransport, WebSocketServer } from './ws-transport.js';

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
  readonly connectionLimits: HalfOpenLimits;
  readonly handleUpgrade: HandleUpgrade;
  readonly clock: Clock;
  readonly log: Log;
}

/** Binds `host:port`; port 0 takes a free one. Throws `STATE` when the address is taken or not to be had. */
export async function listenForPeers({
  port,
  host,
  connectionLimits,
  handleUpgrade,
  clock,
  log,
}: ListenOptions): Promise<Listener> {
  const server = createServer((_request, response) => {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('Not found\n');
  });
  const halfOpen = createHalfOpen(connectionLimits, clock);
  // After an upgrade a socket is no concern of the HTTP server's, which then would wait for it for ever.
  const open = new Map<Duplex, ReleasePlace>();
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
  server.on('error', (error) => log.error({ err: error, host, port }, 'peer link listener error'));
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

/**
 * The sockets of the receiver's own port that are no peer link yet, whatever they have said so far: nothing, half a
 * request, or requests without end. Each has so many milliseconds from its arrival and no more, and a newcomer who finds
 * no room gets that of another (places.ts). So silent strangers neither keep a paired dashboard out nor stay.
 *
 * What has been upgraded is no concern of this: the link's gate counts strangers, and a session of a peer is never ended
 * for want of room.
 */
export type HalfOpenLimits = Pick<ConnectionLimits, 'sockets' | 'handshakeTimeoutMs'>;

/** One timer for all of them fires no more often than this. */
const leastWaitMs = 1_000;

export interface HalfOpen {
  /**
   * Takes a newcomer in; `end` is called once, when his time is over or his place is needed. He leaves when he has been
   * upgraded, or is gone.
   */
  enter(address: string, end: () => void): ReleasePlace;
}

interface HalfOpenSocket {
  readonly until: number;
  readonly end: () => void;
  readonly leave: ReleasePlace;
}

export function createHalfOpen({ sockets, handshakeTimeoutMs }: HalfOpenLimits, clock: Clock): HalfOpen {
  const places = createConnectionPool({ most: sockets });
  /** As they came, so that the first is the next whose time is over. */
  const waiting = new Set<HalfOpenSocket>();
  let isTimed = false;

  function lookLater(): void {
    const [first] = waiting;
    if (isTimed || first === undefined) return;
    isTimed = true;
    clock.after(Math.max(first.until - clock.steady(), leastWaitMs), () => {
      isTimed = false;
      endLate();
      lookLater();
    });
  }

  function endLate(): void {
    const now = clock.steady();
    for (const late of waiting) {
      if (late.until > now) return;
      late.leave();
      late.end();
    }
  }

  return {
    enter(address, end) {
      const leavePlace = places.enter(address, () => {
        waiting.delete(mine);
        end();
      });
      const mine: HalfOpenSocket = {
        until: clock.steady() + handshakeTimeoutMs,
        end,
        leave() {
          waiting.delete(mine);
          leavePlace();
        },
      };
      waiting.add(mine);
      lookLater();
      return mine.leave;
    },
  };
}

/**
 * Upgrades of the peer link's path to a transport, on any HTTP server.
 *
 * Messages are never larger than 65,535 bytes (Noise), and the limit holds from the first byte: `ws` would take
 * 100 MiB from a stranger before the handshake. A path that is not ours is left to whoever else listens.
 */
const maxMessageBytes = 65_535;

/** Handles an upgrade when it is for the peer link. False, and nothing touched, when it is not. */
export type HandleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => boolean;

export function createUpgrade(accept: (transport: Transport) => void): HandleUpgrade {
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    clientTracking: false,
    // Left to itself, `ws` agrees to the first subprotocol that a client offers; the link has none.
    handleProtocols: () => false,
  });
  return function handleUpgrade(request, socket, head) {
    if (pathOf(request) !== peerLinkPath) return false;
    const address = request.socket.remoteAddress ?? '';
    server.handleUpgrade(request, socket, head, (webSocket) =>
      accept(wsTransport(webSocket, address, socket)),
    );
    return true;
  };
}

function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '';
  const query = url.indexOf('?');
  return query < 0 ? url : url.slice(0, query);
}
