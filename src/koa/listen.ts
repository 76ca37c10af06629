/**
 * The peer link on its own port, as Device Builder's build server has it: one path, everything else is 404. A socket that
 * is not upgraded to the peer link in time is closed, and when all places are taken a new connection replaces one of
 * these, so silent strangers neither stay nor keep a paired dashboard out. Node's own limits do the opposite: a full
 * `maxConnections` drops the new connection, and half a request can take minutes.
 */
import { createServer, type Server, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';

import type { Clock } from '../async/clock.js';
import { messageOf, ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { ConnectionLimits } from '../options/core-options.js';
import { maxMessageBytes } from '../protocol/noise.js';
import type { Transport } from '../protocol/transport.js';
import { createFairPool, type ReleasePlace } from '../async/fair-pool.js';
import { messageByMessage, peerLinkPath, wsTransport, WebSocketServer } from './ws-transport.js';

/** The address that was bound. */
export interface Bound {
  readonly port: number;
  /** An IP address, also when a host name was requested. */
  readonly address: string;
}

export interface Listener extends Bound {
  /** Stops listening and destroys all open sockets. */
  close(): Promise<void>;
}

interface ListenOptions {
  readonly port: number;
  readonly host: string;
  readonly connectionLimits: HalfOpenLimits;
  readonly handleUpgrade: HandleUpgrade;
  readonly clock: Clock;
  readonly log: Log;
}

/** Binds `host:port`; port 0 picks a free port. Throws `STATE` when the address cannot be bound. */
export async function listenForPeers({
  port,
  host,
  connectionLimits,
  handleUpgrade,
  clock,
  log,
}: ListenOptions): Promise<Listener> {
  const answered = new WeakSet<Duplex>();
  function answer({ socket }: IncomingMessage, response: ServerResponse): void {
    // One response per connection: a single read can hold thousands of requests, and all would be answered in one turn.
    if (answered.has(socket)) {
      socket.destroy();
      return;
    }
    answered.add(socket);
    response.writeHead(404, { 'content-type': 'text/plain', connection: 'close' }).end('Not found\n');
  }
  const server = createServer(answer);
  // Otherwise Node answers these by itself and keeps the connection.
  server.on('checkExpectation', answer).on('checkContinue', answer);
  const halfOpen = createHalfOpen(connectionLimits, clock);
  // `server.close()` waits for upgraded sockets but cannot end them.
  const open = new Map<Duplex, ReleasePlace>();
  server.on('connection', (socket) => {
    const release = halfOpen.enter(socket.remoteAddress ?? '', () => socket.destroy());
    open.set(socket, release);
    socket.once('close', () => {
      open.delete(socket);
      release();
    });
  });
  server.on('upgrade', (request, socket, head) => {
    if (handleUpgrade(request, socket, head)) {
      // `ws` has already answered an invalid handshake; such a socket stays half-open until it closes.
      if (!socket.writableEnded) open.get(socket)?.();
      return;
    }
    refuseUpgrade(socket);
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

/** One port of a lane, or why it has none. */
export interface LanePort {
  readonly port: number | null;
  readonly fault: string | null;
}

interface LanesOptions {
  /** The lanes after the first that have a key. */
  readonly lanes: readonly number[];
  /** The requested port of each of them. */
  readonly portOf: (lane: number) => number;
  readonly listen: (port: number, lane: number) => Promise<Listener>;
  readonly onListening: (lane: number, listener: Listener) => void;
  readonly clock: Clock;
  readonly log: Log;
}

const lanePortRetryMs = 10_000;

/**
 * Binds each lane after the first to its own port. If a port is taken, it tries again every ten seconds while the other
 * lanes serve. Resolves when it has tried each once.
 */
export async function listenOnLanes({ lanes, portOf, listen, onListening, clock, log }: LanesOptions) {
  const ports = new Map<number, LanePort>();
  const listeners: Listener[] = [];
  const timers = new Map<number, () => void>();
  let isClosed = false;

  async function tryLane(lane: number): Promise<void> {
    try {
      const listener = await listen(portOf(lane), lane);
      if (isClosed) return await listener.close();
      listeners.push(listener);
      ports.set(lane, { port: listener.port, fault: null });
      onListening(lane, listener);
    } catch (error) {
      if (isClosed) return;
      if (!ports.has(lane)) log.warn({ lane, err: error }, 'lane listen failed, trying again');
      ports.set(lane, { port: null, fault: messageOf(error) });
      timers.set(
        lane,
        clock.after(lanePortRetryMs, () => void tryLane(lane)),
      );
    }
  }

  await Promise.all(lanes.map(tryLane));
  return {
    ports: ports as ReadonlyMap<number, LanePort>,
    async close(): Promise<void> {
      isClosed = true;
      for (const cancel of timers.values()) cancel();
      await Promise.all(listeners.splice(0).map((listener) => listener.close()));
    },
  };
}

/** Answers an upgrade with an error, and closes the socket whether or not the client does. */
export function refuseUpgrade(socket: Duplex, status = '404 Not Found'): void {
  socket.on('error', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`, () => socket.destroy());
}

/** Throws `STATE` when the address cannot be bound. */
export function bind(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const why = systemCode(cause) === 'EADDRINUSE' ? 'is already in use' : 'cannot be bound';
      const message = `cannot listen on ${host}:${port}: the address ${why}`;
      reject(new ReceiverError('STATE', message, { host, port }, { cause }));
    });
    server.listen(port, host, resolve);
  });
}

/** For sockets before their upgrade; the peer server has limits for those after it. */
export type HalfOpenLimits = Pick<ConnectionLimits, 'sockets' | 'handshakeTimeoutMs'>;

/** Sockets that are not upgraded yet, whether they have sent nothing, half a request or endless requests. */
export function createHalfOpen({ sockets, handshakeTimeoutMs }: HalfOpenLimits, clock: Clock) {
  const places = createFairPool({ most: sockets });
  return {
    /** Adds a socket; `end` is called once, on timeout or when its place is needed. Release it on upgrade or close. */
    enter(address: string, end: () => void): ReleasePlace {
      const leave = places.enter(address, () => {
        cancelTimer();
        end();
      });
      const release = (): void => {
        cancelTimer();
        leave();
      };
      const cancelTimer = clock.after(handshakeTimeoutMs, () => {
        leave();
        end();
      });
      return release;
    },
  };
}

/** Upgrades a request to the peer link. Returns false, with nothing touched, for any other path. */
export type HandleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => boolean;

/** Works on any HTTP server. The message limit holds from the first byte: by default `ws` accepts 100 MiB of a stranger. */
export function createUpgrade(accept: (transport: Transport) => void): HandleUpgrade {
  const server = new WebSocketServer({
    noServer: true,
    ...messageByMessage,
    maxPayload: maxMessageBytes,
    clientTracking: false,
    // By default `ws` accepts the first subprotocol that a client offers; the peer link has none.
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
