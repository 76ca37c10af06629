/**
 * The receiver as a host mounts it: the core with its routes, its sockets and its own port.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { parse } from 'node:url';

import type Koa from 'koa';
import type { Middleware } from 'koa';
import type websockify from 'koa-websocket';
import type { VerifyClientCallbackSync } from 'ws';

import { systemClock as clock } from '../async/clock.js';
import { ReceiverError } from '../errors.js';
import type { ReceiverCore } from '../receiver-api.js';
import { openReceiver } from '../receiver.js';
import { defaultConnectBackTiming, type ConnectBackTiming } from '../server/connect-back-schedule.js';
import { callStepMs } from '../server/connect-back.js';
import { createAnnouncer } from './announce.js';
import { resolveAnnounce } from './bonjour.js';
import { createHostPaths, type HostPaths } from './host-paths.js';
import { listenForPeers, type Listener, createUpgrade } from './listen.js';
import { resolveReceiverOptions } from './options.js';
import type { ReceiverOptions } from './receiver-options.js';
import { loadWebsockify, createRoutes } from './routes.js';
import { createEvents, createSockets } from './sockets.js';
import { callFrom, dial } from './ws-transport.js';

/** What of the core a host may have as it is. */
type Shared = Pick<
  ReceiverCore,
  'paths' | 'pin' | 'pairing' | 'peers' | 'jobs' | 'retention' | 'clean' | 'composeEnvironment' | 'subscribe'
>;

export interface Receiver extends Shared {
  /** The same look-ups as `ctx.esphomePaths`. */
  readonly hostPaths: HostPaths;
  /** The admin routes and `ctx.esphomePaths`, for `app.use`. */
  routes(): Middleware;
  /**
   * Events and the peer link on the host's own port, for `app.ws.use` of koa-websocket; with `peerLink: false` events
   * alone, for a host that wants dashboards at the port of `listen` only.
   */
  sockets(options?: MountOptions): websockify.Middleware;
  /** Does both for a host without wishes. Reuses `app.ws` when koa-websocket is there already. */
  mount(app: Koa, options?: MountOptions): void;
  /** For a host that owns its server: takes an upgrade of the peer link over. False: not ours, nothing touched. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean;
  /** Opens the peer link on a port of its own; resolves to the port. Default host: `0.0.0.0`. Throws `STATE`. */
  listen(port: number, host?: string): Promise<number>;
  /** Ends everything that was started: peers hear `server_shutting_down`, running builds are ended. */
  close(): Promise<void>;
}

export interface MountOptions {
  /** Default: true. */
  readonly peerLink?: boolean | undefined;
}

const maxEventMessageBytes = 1024 * 1024;

/** Makes a receiver. Throws `OPTIONS`, `STATE` for a peers file of a newer release, and system errors. */
export async function createReceiver(options: ReceiverOptions): Promise<Receiver> {
  return createTimedReceiver(options, defaultConnectBackTiming);
}

/** The same for tests that cannot wait for five minutes. */
export async function createTimedReceiver(
  options: ReceiverOptions,
  timing: ConnectBackTiming,
): Promise<Receiver> {
  const resolved = resolveReceiverOptions(options);
  const { authorize, prefix } = resolved;
  const wish = await resolveAnnounce(resolved.announce);
  const core = await openReceiver(resolved);
  const announcer =
    wish && createAnnouncer({ ...wish, publisher: wish.makePublisher(core.options.log), core, clock });
  const hostPaths = createHostPaths(core);
  const upgrade = createUpgrade(core.accept);
  const events = createEvents(core);
  const listeners: Listener[] = [];
  let isClosed = false;

  const receiver: Receiver = {
    paths: core.paths,
    hostPaths,
    pin: core.pin,
    pairing: core.pairing,
    peers: core.peers,
    jobs: core.jobs,
    retention: core.retention,
    clean: core.clean,
    composeEnvironment: core.composeEnvironment,
    routes: () => createRoutes({ core, hostPaths, prefix, authorize }),
    sockets: ({ peerLink = true } = {}) => createSockets({ core, events, prefix, authorize, peerLink }),
    mount(app, wishes) {
      // Calling koa-websocket twice on one app lets any client crash the process.
      const withSockets = 'ws' in app ? (app as websockify.App) : loadWebsockify()(app, websocketOptions);
      app.use(receiver.routes());
      withSockets.ws.use(receiver.sockets(wishes));
      harden(withSockets.ws);
    },
    handleUpgrade: upgrade,
    async listen(port, host = '0.0.0.0') {
      if (isClosed) throw new ReceiverError('STATE', 'the receiver is closed');
      const { log, connectionLimits } = core.options;
      const listener = await listenForPeers({
        port,
        host,
        connectionLimits,
        handleUpgrade: upgrade,
        clock,
        log,
      });
      listeners.push(listener);
      if (isClosed) {
        await listener.close();
        throw new ReceiverError('STATE', 'the receiver is closed');
      }
      core.callBackFrom({
        port: listener.port,
        dial: (where, signal) =>
          dial(where, { signal, timeoutMs: callStepMs, localAddress: callFrom(host, where.host) }),
        timing,
      });
      announcer?.begin(listener);
      log.info({ host, port: listener.port, pin: core.pin }, 'listening');
      return listener.port;
    },
    subscribe: core.subscribe,
    async close() {
      isClosed = true;
      events.close();
      await Promise.all([announcer?.close(), core.close()]);
      await Promise.all(listeners.splice(0).map((listener) => listener.close()));
    },
  };
  return receiver;
}

/**
 * Two ways in which koa-websocket crashes the process: its socket server repeats the errors of the HTTP server, such
 * as a port that is taken, where nobody listens; and it parses the address of an upgrade where nothing catches, so
 * that one request from any web page ends the host. Takes effect when the host begins to listen.
 */
function harden(sockets: websockify.App['ws']): void {
  const listen = sockets.listen.bind(sockets);
  sockets.listen = (options) => {
    const { verifyClient } = options;
    const server = listen({
      ...options,
      verifyClient(info, callback) {
        if (!isParsable(info.req.url)) return callback(false, 400);
        if (verifyClient === undefined) return callback(true);
        if (verifyClient.length === 2) return verifyClient(info, callback);
        return callback((verifyClient as VerifyClientCallbackSync)(info));
      },
    });
    sockets.server?.on('error', () => {});
    return server;
  };
}

/** By the old parser, which is the one that koa-websocket uses. */
function isParsable(address: string | undefined): boolean {
  try {
    return parse(address ?? '').pathname !== null;
  } catch {
    return false;
  }
}

const websocketOptions = { perMessageDeflate: false, maxPayload: maxEventMessageBytes };
