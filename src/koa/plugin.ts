/** The receiver as a host mounts it: the core plus its routes, its sockets, its port and its mDNS announcement. */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

import type Koa from 'koa';
import type { Middleware } from 'koa';
import type websockify from 'koa-websocket';

import { systemClock as clock } from '../async/clock.js';
import { ReceiverError } from '../errors.js';
import type { ReceiverCore } from '../receiver-api.js';
import { openReceiver } from '../receiver.js';
import { defaultConnectBackTiming, type ConnectBackTiming } from '../server/connect-back-schedule.js';
import { fingerprintOf, type LaneView } from '../views.js';
import { callStepMs } from '../server/connect-back.js';
import { createAnnouncer, type Announcer } from './announce.js';
import { resolveAnnounce } from './bonjour.js';
import { callFrom, dial } from './dial.js';
import { createHostPaths, type HostPaths } from './host-paths.js';
import { listenForPeers, listenOnLanes, type Listener, createUpgrade } from './listen.js';
import { resolveReceiverOptions } from './options.js';
import type { ReceiverOptions } from './receiver-options.js';
import { loadWebsockify, createRoutes } from './routes.js';
import { createHostSockets, type SocketMiddleware } from './sockets.js';

// Here and not in routes.ts: a host's compiler reads only what index.d.ts leads to.
declare module 'koa' {
  interface ExtendableContext {
    /** Paths of local and remote configurations; set by `receiver.routes()`. */
    esphomePaths: HostPaths;
  }
}

/** The parts of the core that a host gets unchanged. */
type Shared = Pick<
  ReceiverCore,
  'paths' | 'pin' | 'pairing' | 'peers' | 'jobs' | 'retention' | 'clean' | 'composeEnvironment' | 'subscribe'
>;

export interface Receiver extends Shared {
  /**
   * The build servers that the receiver presents: more than one with the option `lanes`.
   */
  lanes(): readonly LaneView[];
  /** The same functions as `ctx.esphomePaths`. */
  readonly hostPaths: HostPaths;
  /** The admin routes and `ctx.esphomePaths`, for `app.use`. */
  routes(): Middleware;
  /**
   * The event stream and the peer link on the host's port, for `app.ws.use` of koa-websocket with a `maxPayload` of at most
   * 65,535. On a server that accepts larger messages, both are refused.
   */
  sockets(options?: MountOptions): SocketMiddleware;
  /**
   * Mounts `routes` and `sockets` on an app. Reuses `app.ws` if koa-websocket is already installed. Our paths get our limits
   * on any server; another WebSocket path is the host's if it has a middleware on `app.ws`, and 404 otherwise.
   */
  mount(app: Koa, options?: MountOptions): void;
  /** For a host with its own HTTP server: upgrades a peer link request. Returns false, with nothing touched, for others. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean;
  /** Opens the peer link on its own port and resolves to the port. Default host: `0.0.0.0`. Throws `STATE`. */
  listen(port: number, host?: string): Promise<number>;
  /**
   * Ends everything that was started: sends peers `server_shutting_down` and stops running builds. Once it is called, every
   * function throws `STATE`, except those that only compute or read paths.
   */
  close(): Promise<void>;
}

export interface MountOptions {
  /** False serves the peer link only on the port of `listen`. Default: true. */
  readonly peerLink?: boolean | undefined;
}

type LaneListeners = Awaited<ReturnType<typeof listenOnLanes>>;

const maxEventMessageBytes = 1024 * 1024;

/** Creates a receiver. Throws `OPTIONS`, `STATE` for a peers file of a newer release, and system errors. */
export async function createReceiver(options: ReceiverOptions): Promise<Receiver> {
  return createTimedReceiver(options, defaultConnectBackTiming);
}

/** For tests, which cannot wait five minutes for a connect-back. */
export async function createTimedReceiver(
  options: ReceiverOptions,
  timing: ConnectBackTiming,
): Promise<Receiver> {
  const resolved = resolveReceiverOptions(options);
  const { authorize, prefix } = resolved;
  const announce =
    resolved.announce === false ? null : await resolveAnnounce(resolved.announce, resolved.log);
  const core = await openReceiver(resolved);
  const { paths, pin, pairing, peers, jobs, retention, clean, composeEnvironment, subscribe } = core;
  const announcers = new Map<number, Announcer>();
  if (announce) announcers.set(1, createAnnouncer({ ...announce, core, clock }));
  const hostPaths = createHostPaths(core);
  const handleUpgrade = createUpgrade(core.accept);
  const hostSockets = createHostSockets({ core, lanes, prefix, authorize, handleUpgrade });
  const listeners: Listener[] = [];
  const laneListeners: LaneListeners[] = [];
  let isClosed = false;

  function assertOpen(): void {
    if (isClosed) throw new ReceiverError('STATE', 'the receiver is closed');
  }

  function lanes(): readonly LaneView[] {
    return core.lanes.map((lane) => {
      const [bound] = laneListeners.flatMap(({ ports }) => ports.get(lane.number) ?? []);
      const own = lane.number === 1 ? { port: listeners[0]?.port ?? null, fault: null } : bound;
      const fault = lane.fault ?? own?.fault ?? null;
      return {
        ...lane,
        fault,
        port: own?.port ?? null,
        fingerprint: lane.pin === null ? null : fingerprintOf(lane.pin),
      };
    });
  }

  /** Announces a lane once it listens; each needs a publisher of its own. */
  async function announceLane(number: number, listener: Listener): Promise<void> {
    const { announce: option, log } = resolved;
    const lane = core.lanes.find((each) => each.number === number);
    if (option === false || isClosed || !lane?.pin) return;
    const named = { ...core.options, friendlyName: lane.friendlyName };
    const facts = { options: named, pin: lane.pin, esphomeVersion: core.esphomeVersion, lane: number };
    const publishing = await resolveAnnounce(option, log);
    // `close` withdraws only what it finds.
    if (isClosed) return;
    const own = createAnnouncer({ ...publishing, core: facts, clock });
    announcers.set(number, own);
    own.begin(listener);
  }

  async function listenFurther(requested: number, host: string): Promise<void> {
    const { log, connectionLimits, lanePorts } = core.options;
    const further = core.lanes.filter(({ number, pin: lanePin }) => number > 1 && lanePin !== null);
    const opened = await listenOnLanes({
      lanes: further.map(({ number }) => number),
      portOf: (lane) => lanePorts?.[lane - 2] ?? (requested === 0 ? 0 : requested + lane - 1),
      listen: (port, lane) =>
        listenForPeers({
          ...{ port, host, connectionLimits, clock, log },
          handleUpgrade: createUpgrade((transport) => core.accept(transport, lane)),
        }),
      onListening(lane, listener) {
        log.info({ lane, host, port: listener.port, pin: core.lanes[lane - 1]?.pin }, 'lane listening');
        void announceLane(lane, listener).catch((err: unknown) =>
          log.warn({ err, lane }, 'lane not announced'),
        );
      },
      ...{ clock, log },
    });
    laneListeners.push(opened);
    if (isClosed) await opened.close();
  }

  const receiver: Receiver = {
    lanes() {
      assertOpen();
      return lanes();
    },
    ...{ paths, pin, pairing, peers, jobs, retention, clean, composeEnvironment, subscribe },
    ...{ hostPaths, handleUpgrade },
    routes() {
      assertOpen();
      return createRoutes({ core, lanes, hostPaths, prefix, authorize });
    },
    sockets({ peerLink = true } = {}) {
      assertOpen();
      return hostSockets.middleware(peerLink);
    },
    mount(app, mountOptions = {}) {
      assertOpen();
      // Calling koa-websocket twice on one app lets any client crash the process.
      const withSockets = 'ws' in app ? (app as websockify.App) : loadWebsockify()(app, websocketOptions);
      app.use(receiver.routes());
      withSockets.ws.use(receiver.sockets(mountOptions));
      hostSockets.guard(withSockets.ws, mountOptions.peerLink ?? true);
    },
    async listen(port, host = '0.0.0.0') {
      assertOpen();
      const { log, connectionLimits } = core.options;
      const listener = await listenForPeers({ port, host, connectionLimits, handleUpgrade, clock, log });
      listeners.push(listener);
      if (isClosed) await listener.close();
      assertOpen();
      core.callBackFrom({
        port: listener.port,
        dial: (where, signal) =>
          dial(where, { signal, timeoutMs: callStepMs, localAddress: callFrom(host, where.host) }),
        timing,
      });
      announcers.get(1)?.begin(listener);
      log.info({ host, port: listener.port, pin }, 'listening');
      if (core.lanes.length > 1) await listenFurther(port, host);
      return listener.port;
    },
    async close() {
      isClosed = true;
      hostSockets.close();
      await Promise.all([...[...announcers.values()].map((each) => each.close()), core.close()]);
      await Promise.all([...listeners.splice(0), ...laneListeners.splice(0)].map((each) => each.close()));
    },
  };
  return receiver;
}

/** For sockets of the host on a server that `mount` has made. */
const websocketOptions = { perMessageDeflate: false, maxPayload: maxEventMessageBytes };
