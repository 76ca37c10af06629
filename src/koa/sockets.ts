/**
 * The WebSocket side for koa-websocket: events, and the peer link when it shares the host's port.
 *
 * koa-websocket leaves a socket open for ever when no route matched or a route threw, and loses what arrives
 * before a listener is attached; so ours decides at once and closes what it refuses.
 */
import type websockify from 'koa-websocket';
import type { WebSocket } from 'ws';

import { systemClock } from '../async/clock.js';
import { createRefusalLog } from '../log.js';
import type { ReceiverCore } from '../receiver-api.js';
import { refusal, type Authorize } from './authorize.js';
import { stateOf, type StateSource } from './state.js';
import { peerLinkPath, wsTransport } from './ws-transport.js';

/** Close codes in the private range mirror the HTTP status. */
const refusedCode = 4000;
const brokenCode = 1011;

export interface SocketsOptions {
  readonly core: ReceiverCore;
  readonly events: Events;
  readonly prefix: string;
  readonly authorize: Authorize | undefined;
  /** Whether the peer link is on the host's port, too. */
  readonly peerLink: boolean;
}

/** One middleware for `app.ws.use`. Other paths go on to the next. */
export function createSockets(options: SocketsOptions): websockify.Middleware {
  const { core, events, prefix, authorize, peerLink } = options;
  const warnRefused = createRefusalLog(core.options.log, systemClock);
  return async function esphomeReceiverSockets(ctx, next) {
    const { websocket, path } = ctx;
    if (path === peerLinkPath) {
      if (!peerLink) return websocket.close(refusedCode + 404, 'the peer link has a port of its own');
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
      websocket.close(brokenCode, 'internal error');
    }
  };
}

/**
 * Live events for operators' pages, one JSON object a message: a snapshot first, then what changes.
 *
 * A page that does not keep up is closed and reconnects to a new snapshot; the receiver never buffers for it
 * without bound. Open pages are closed with the receiver: a host whose server waits for them would never end.
 */
const maxBufferedBytes = 1024 * 1024;
/** WebSocket close codes: going away, and try again later. */
const goingAway = 1001;
const tooSlow = 1013;

export interface Events {
  /** Follows the receiver until the socket closes. Job output is sent for one job only, when `job` names it. */
  follow(socket: WebSocket, job: string | null): void;
  close(): void;
}

export function createEvents(core: Pick<ReceiverCore, 'subscribe'> & StateSource): Events {
  const sockets = new Set<WebSocket>();

  return {
    follow(socket, job) {
      if (socket.readyState !== socket.OPEN) return;
      function send(event: object): void {
        if (socket.readyState !== socket.OPEN) return;
        if (socket.bufferedAmount > maxBufferedBytes) return socket.close(tooSlow, 'reading too slowly');
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
