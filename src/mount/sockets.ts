/**
 * The WebSocket side for koa-websocket: events, and the peer link when it shares the host's port.
 *
 * koa-websocket leaves a socket open for ever when no route matched or a route threw, and loses what arrives
 * before a listener is attached; so ours decides at once and closes what it refuses.
 */
import type websockify from 'koa-websocket';

import type { ReceiverCore } from '../core.js';
import { refusal, type Authorize } from './authorize.js';
import type { Events } from './events.js';
import { peerLinkPath } from './peer-link-path.js';
import { wsTransport } from './ws-transport.js';

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
      if (refused) return websocket.close(refusedCode + refused.status, refused.message);
      const job = typeof ctx.query['job'] === 'string' ? ctx.query['job'] : null;
      events.follow(websocket, job);
    } catch (error) {
      core.options.log.error({ error }, 'the authorize hook failed on a socket');
      websocket.close(brokenCode, 'internal error');
    }
  };
}
