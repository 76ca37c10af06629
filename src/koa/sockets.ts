/**
 * The sockets on the host's port: live events for operators' pages, and the peer link. A WebSocket server of
 * koa-websocket accepts any path from anybody, with messages of 100 MiB, and never closes a socket that no middleware
 * answers. So our own servers upgrade our paths, with our limits, and refuse a path that nobody serves before the
 * upgrade.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { parse } from 'node:url';

import type websockify from 'koa-websocket';
import type { WebSocket } from 'ws';

import { systemClock } from '../async/clock.js';
import { createRefusalLog } from '../log.js';
import { maxMessageBytes } from '../protocol/noise.js';
import type { ReceiverCore } from '../receiver-api.js';
import type { ReleasePlace } from '../async/fair-pool.js';
import { refusal, type Authorize } from './authorize.js';
import { createHalfOpen, refuseUpgrade, type HandleUpgrade } from './listen.js';
import { stateOf } from './state.js';
import { messageByMessage, peerLinkPath, WebSocketServer, wsTransport } from './ws-transport.js';
import type { LaneView } from '../views.js';

/** Added to the HTTP status of a refusal: a close code in the private range. */
const refusedCode = 4000;
/** WebSocket close codes. */
const goingAway = 1001;
const internalError = 1011;
const tryAgainLater = 1013;
const maxBufferedBytes = 1024 * 1024;
/** A page sends nothing. */
const maxEventMessageBytes = 1024;

/**
 * For `app.ws.use` of koa-websocket. The types of that package are not named here: importing them would add a
 * `websocket` to the host's own `Koa.Context`.
 */
export type SocketMiddleware = (context: SocketContext, next: () => Promise<unknown>) => Promise<void>;

/** What koa-websocket puts into a context. */
export interface SocketContext {
  readonly path: string;
  readonly websocket: { close(code?: number, reason?: string): void };
}

interface HostSocketsOptions {
  readonly core: ReceiverCore;
  readonly lanes: () => readonly LaneView[];
  readonly prefix: string;
  readonly authorize: Authorize | undefined;
  /** Upgrades the peer link. */
  readonly handleUpgrade: HandleUpgrade;
}

type Sockets = websockify.App['ws'];
type Server = NonNullable<Sockets['server']>;

/** All middlewares of receivers. Any other one belongs to the host and can serve any path. */
const ownMiddlewares = new WeakSet<object>();
/** The WebSocket servers behind the guard of a receiver. */
const guarded = new WeakSet<Server>();

/** @internal */
export function createHostSockets({ core, lanes, prefix, authorize, handleUpgrade }: HostSocketsOptions) {
  const { log, connectionLimits } = core.options;
  const eventsPath = `${prefix}/events`;
  const ownPrefix = `${prefix}/`.toLowerCase();
  const warnRefused = createRefusalLog(log, systemClock);
  const events = createEvents(core, lanes);
  const halfOpen = createHalfOpen(connectionLimits, systemClock);
  /** The bounded pool of event sockets that are not authorized yet. */
  const places = new WeakMap<Duplex, ReleasePlace>();
  const server = new WebSocketServer({
    ...{ noServer: true, clientTracking: false, ...messageByMessage },
    maxPayload: maxEventMessageBytes,
  });
  let isClosed = false;

  function placeOf({ socket }: IncomingMessage): ReleasePlace {
    const place = places.get(socket) ?? halfOpen.enter(socket.remoteAddress ?? '', () => socket.destroy());
    if (!places.has(socket)) socket.once('close', place);
    places.set(socket, place);
    return place;
  }

  /** A middleware for `app.ws.use`, which passes other paths on. */
  function middleware(peerLink: boolean): SocketMiddleware {
    ownMiddlewares.add(esphomeReceiverSockets);
    return esphomeReceiverSockets;

    async function esphomeReceiverSockets(
      context: SocketContext,
      next: () => Promise<unknown>,
    ): Promise<void> {
      const ctx = context as websockify.MiddlewareContext<unknown>;
      const { websocket, path, req } = ctx;
      if (path !== peerLinkPath && path !== eventsPath) {
        await next();
        return;
      }
      websocket.on('error', () => websocket.terminate());
      if (!isLimited(ctx.app.ws.server)) {
        const cause = `the host's WebSocket server accepts messages of more than ${maxMessageBytes} bytes: use mount, or give koa-websocket a smaller maxPayload`;
        warnRefused({ path, address: ctx.ip, cause }, 'connection refused');
        return websocket.terminate();
      }
      if (path === eventsPath) return follow(ctx);
      if (!peerLink) return websocket.close(refusedCode + 404, 'the peer link is on another port');
      core.accept(wsTransport(websocket, req.socket.remoteAddress ?? '', req.socket));
    }
  }

  async function follow(ctx: websockify.MiddlewareContext<unknown>): Promise<void> {
    const { websocket, path, req } = ctx;
    const release = placeOf(req);
    try {
      const refused = await refusal(ctx, authorize);
      if (refused) {
        warnRefused({ path, address: ctx.ip, cause: refused.message }, 'admin request refused');
        return websocket.close(refusedCode + refused.status, refused.message);
      }
      if (isClosed) return websocket.close(goingAway, 'the receiver is closed');
      release();
      events.follow(websocket, typeof ctx.query['job'] === 'string' ? ctx.query['job'] : null);
    } catch (error) {
      log.error({ err: error }, 'authorize hook threw');
      websocket.close(internalError, 'internal error');
    }
  }

  /** Puts our paths in front of every WebSocket server of the app, present and future. */
  function guard(sockets: Sockets, peerLink: boolean): void {
    if (sockets.server) guardServer(sockets.server, sockets, peerLink);
    const listen = sockets.listen.bind(sockets);
    sockets.listen = (options) => {
      const result = listen(options);
      if (sockets.server) guardServer(sockets.server, sockets, peerLink);
      return result;
    };
  }

  function guardServer(theirs: Server, sockets: Sockets, peerLink: boolean): void {
    const pass = theirs.handleUpgrade.bind(theirs);
    const hasOther = guarded.has(theirs);
    guarded.add(theirs);
    // It re-emits errors of the HTTP server, such as a port in use, and one without a listener ends the process.
    theirs.on('error', () => {});
    theirs.handleUpgrade = (request, socket, head, done) => {
      const path = pathOf(request);
      if (path === null) return refuseUpgrade(socket, '400 Bad Request');
      if (path === peerLinkPath && (peerLink || !hasOther)) {
        if (!peerLink || !handleUpgrade(request, socket, head)) refuseUpgrade(socket);
        return;
      }
      if (path === eventsPath && !isClosed) {
        placeOf(request);
        server.handleUpgrade(request, socket, head, (webSocket) => sockets.onConnection(webSocket, request));
        return;
      }
      if (`${path}/`.toLowerCase().startsWith(ownPrefix)) return refuseUpgrade(socket);
      if (hasOther || hasOwnMiddleware(sockets)) return pass(request, socket, head, done);
      // Another upgrade listener of the host answers.
      if ((theirs.options.server?.listenerCount('upgrade') ?? 0) > 1) return;
      refuseUpgrade(socket);
    };
  }

  return {
    middleware,
    guard,
    /** Closes all sockets; otherwise a host that waits for them would never end. */
    close(): void {
      isClosed = true;
      events.close();
    },
  };
}

/** The path as koa-websocket reads it, with the legacy parser; null when that fails, which it does not catch. */
function pathOf({ url = '' }: IncomingMessage): string | null {
  try {
    return parse(url).pathname;
  } catch {
    return null;
  }
}

/** Whether the host has a middleware of its own, which can answer any path. */
function hasOwnMiddleware({ middleware }: Sockets): boolean {
  return middleware.some((each) => !ownMiddlewares.has(each));
}

/** Whether a stranger's message is bounded as on the receiver's own port. */
function isLimited(server: Server | undefined): boolean {
  if (server === undefined || guarded.has(server)) return true;
  const { maxPayload = Infinity } = server.options;
  return maxPayload > 0 && maxPayload <= maxMessageBytes;
}

/**
 * One JSON object per message: a snapshot, then every change. A page that reads too slowly is closed, so the buffer stays
 * bounded, and gets a new snapshot when it reconnects.
 */
function createEvents(core: ReceiverCore, lanes: () => readonly LaneView[]) {
  const sockets = new Set<WebSocket>();

  return {
    /** Sends events until the socket closes. Job output is sent only for `job`. */
    follow(socket: WebSocket, job: string | null): void {
      if (socket.readyState !== socket.OPEN) return;
      function send(event: object): void {
        if (socket.readyState !== socket.OPEN) return;
        if (socket.bufferedAmount > maxBufferedBytes)
          return socket.close(tryAgainLater, 'reading too slowly');
        socket.send(JSON.stringify(event));
      }
      const unsubscribe = core.subscribe((event) => {
        if (event.type !== 'output' || event.jobId === job) send(event);
      });
      sockets.add(socket);
      socket.on('close', () => {
        sockets.delete(socket);
        unsubscribe();
      });
      send({ type: 'snapshot', ...stateOf(core, lanes()) });
    },
    close(): void {
      for (const socket of sockets) socket.close(goingAway);
    },
  };
}
