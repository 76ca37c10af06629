/**
 * The sockets on the host's port, for koa-websocket: live events for operators' pages, and the peer link. koa-websocket
 * leaves a socket open forever when no route matches or a route throws, and loses messages that arrive before a listener
 * is attached; so this middleware decides immediately and closes every socket that it refuses.
 */
import type websockify from 'koa-websocket';
import type { WebSocket } from 'ws';

import { systemClock } from '../async/clock.js';
import { createRefusalLog } from '../log.js';
import type { ReceiverCore } from '../receiver-api.js';
import { refusal, type Authorize } from './authorize.js';
import { stateOf, type StateSource } from './state.js';
import { peerLinkPath, wsTransport } from './ws-transport.js';

/** Added to the HTTP status of a refusal: a close code in the private range. */
const refusedCode = 4000;
/** WebSocket close codes. */
const goingAway = 1001;
const internalError = 1011;
const tryAgainLater = 1013;
const maxBufferedBytes = 1024 * 1024;

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

/** @internal */
export interface SocketsOptions {
  readonly core: ReceiverCore;
  readonly events: Events;
  readonly prefix: string;
  readonly authorize: Authorize | undefined;
  /** Whether the host's port serves the peer link. */
  readonly peerLink: boolean;
}

/**
 * A middleware for `app.ws.use`, which passes other paths on.
 *
 * @internal
 */
export function createSockets(options: SocketsOptions): SocketMiddleware {
  const { core, events, prefix, authorize, peerLink } = options;
  const warnRefused = createRefusalLog(core.options.log, systemClock);
  return async function esphomeReceiverSockets(context, next) {
    const ctx = context as websockify.MiddlewareContext<unknown>;
    const { websocket, path } = ctx;
    if (path === peerLinkPath) {
      if (!peerLink) return websocket.close(refusedCode + 404, 'the peer link is on another port');
      const { socket } = ctx.req;
      core.accept(wsTransport(websocket, socket.remoteAddress ?? '', socket));
      return;
    }
    if (path !== `${prefix}/events`) {
      await next();
      return;
    }
    websocket.on('error', () => websocket.terminate());
    try {
      const refused = await refusal(ctx, authorize);
      if (refused) {
        warnRefused({ path, address: ctx.ip, cause: refused.message }, 'admin request refused');
        return websocket.close(refusedCode + refused.status, refused.message);
      }
      const job = typeof ctx.query['job'] === 'string' ? ctx.query['job'] : null;
      events.follow(websocket, job);
    } catch (error) {
      core.options.log.error({ err: error }, 'authorize hook threw');
      websocket.close(internalError, 'internal error');
    }
  };
}

/**
 * One JSON object per message: a snapshot, then every change. A page that reads too slowly is closed, so the buffer stays
 * bounded, and gets a new snapshot when it reconnects.
 *
 * @internal
 */
export interface Events {
  /** Sends events until the socket closes. Job output is sent only for `job`. */
  follow(socket: WebSocket, job: string | null): void;
  /** Closes all sockets; otherwise a host that waits for them would never end. */
  close(): void;
}

/** @internal */
export function createEvents(core: Pick<ReceiverCore, 'subscribe'> & StateSource): Events {
  const sockets = new Set<WebSocket>();

  return {
    follow(socket, job) {
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
      send({ type: 'snapshot', ...stateOf(core) });
    },
    close() {
      for (const socket of sockets) socket.close(goingAway);
    },
  };
}
