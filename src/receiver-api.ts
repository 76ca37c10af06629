/**
 * The receiver as a mount sees it: its contracts, and the facades over pairing, peers and jobs. The facades check ids and
 * configurations once and expose no other part, so that a mount depends on this contract and not on the wiring.
 */
import { types } from 'node:util';

import { ReceiverError } from './errors.js';
import type { Environment } from './esphome/environment.js';
import type { JobService } from './jobs/job-service.js';
import type { JobEvent } from './jobs/lifecycle.js';
import type { Slot } from './jobs/queue.js';
import type { ResolvedOptions } from './options/core.js';
import { type Paths, dashboardId, type DashboardId } from './paths/index.js';
import type { LaneFacts } from './peers/identity.js';
import type { PairingEvent, PairingService } from './peers/pairing.js';
import type { PeerTable } from './peers/peers.js';
import type { Transport } from './protocol/transport.js';
import type { Owners } from './retention/peer-data.js';
import type { Retention } from './retention/service.js';
import type { CallingPlace } from './server/connect-back-schedule.js';
import type { SessionEvent, Sessions } from './server/sessions.js';
import {
  eventView,
  jobView,
  localJobView,
  peerView,
  requestView,
  type JobView,
  type LocalJobView,
  type PeerView,
  type ReceiverEvent,
  type RequestView,
} from './views.js';

export interface ReceiverCore {
  readonly options: ResolvedOptions;
  readonly paths: Paths;
  /** SHA-256 of the receiver's public key in lower-case hex, which people compare. */
  readonly pin: string;
  readonly pairing: Pairing;
  readonly peers: Peers;
  readonly jobs: Jobs;
  readonly retention: Retention;
  /** The version of the host's ESPHome, checked at most every 30 s. Throws `PROVISION` when it is missing or silent. */
  esphomeVersion(): Promise<string>;
  /**
   * The complete environment of a configuration's compile. Local: the host's environment, unchanged. Remote: an allow-list
   * of it, pinned to the build's data directory; directories that it names (`HOME`, `TMPDIR`) are created when a build
   * begins. Throws `TRAVERSAL`, and `OPTIONS` for a variable with a NUL or a line end.
   */
  composeEnvironment(configuration: string): Environment;
  /**
   * Removes the build of a peer's device, once no build of it runs; configuration and sidecar stay. Does not call `esphome
   * clean`, which empties shared caches. Throws `STATE` for a local configuration, `TRAVERSAL`, `LOCK_TIMEOUT`, and
   * `CANCELLED` when the receiver closes meanwhile.
   */
  clean(configuration: string): Promise<void>;
  /** Removes all data of a peer's device, if there is any, once no build of it runs. Throws like `clean`. */
  removeDevice(configuration: string): Promise<void>;
  /** The build servers that the receiver presents; the first has its key and name. */
  readonly lanes: readonly LaneFacts[];
  /** Takes over a connection of the peer link, to the lane with this number. Default: the first. */
  accept(transport: Transport, lane?: number): void;
  /**
   * Starts to connect back to absent peers, if the option is on, and tells them this port. Only the first call has an
   * effect.
   */
  callBackFrom(place: CallingPlace): void;
  /** Reports events of jobs, pairing and sessions. The returned function ends that. */
  subscribe(listener: (event: ReceiverEvent) => void): () => void;
  /** Ends sessions, builds and timers; resolves when none is running. Once it is called, all else throws `STATE`. */
  close(): Promise<void>;
}

/** The pairing window and its requests. */
export interface Pairing {
  /**
   * Opens the window for five minutes, or extends it. Each client has its own share, so one operator's page does not close
   * the window for another. `client` is any name; the default is the share of the host. Throws `OPTIONS` for a name of more
   * than 64 characters, and for more than 64 clients.
   */
  open(client?: string): void;
  /** Ends the client's share, or closes the window for all if there is no name. The end of the window drops all requests. */
  close(client?: string): void;
  /** Milliseconds until the window closes by itself; 0 when it is closed. */
  closesInMs(): number;
  requests(): readonly RequestView[];
  /** Approves the request with this pin. Throws `PAIRING` when there is none, `TRAVERSAL` for an invalid id. */
  approve(dashboardId: string, pin: string, options?: DecisionOptions): Promise<PeerView>;
  /** Drops the request. False when there is none. Throws `TRAVERSAL` for an invalid id. */
  reject(dashboardId: string, options?: DecisionOptions): boolean;
  /**
   * Opens the window for 15 minutes for exactly one pairing, with a key that is shown once: for a server without a screen.
   * An operator can open the window beside it, for requests without the key. Throws `STATE` when a dashboard is already
   * paired.
   */
  armOneTimeKey(show: (key: string) => void): void;
}

export interface DecisionOptions {
  /** The author of the decision, for the log. Default: the host. */
  readonly by?: string | undefined;
}

/** The approved dashboards. */
export interface Peers {
  list(): readonly PeerView[];
  /**
   * Ends the approval, the peer's session and its jobs, then removes its builds and results. With `data: 'keep'` they stay
   * for the same key, in case it pairs again, until a second call removes them; another key that pairs under the id has
   * them removed first, because peers choose their ids. False when there is neither such a peer nor data. Throws
   * `TRAVERSAL`.
   */
  revoke(
    dashboardId: string,
    options?: DecisionOptions & { readonly data?: 'delete' | 'keep' | undefined },
  ): Promise<boolean>;
}

/** The builds, oldest first. */
export interface Jobs {
  list(): readonly JobView[];
  get(id: string): JobView | undefined;
  /** Cancels the job. False when there is none, or it has ended. */
  cancel(id: string): boolean;
  /**
   * Waits for a slot for the host's own build, which queues with the builds of peers and counts among them. Always release
   * the slot. Rejects with the signal's reason, `TRAVERSAL`, `RESOURCE` when the disk is nearly full, `CANCELLED` when the
   * receiver closes meanwhile, `STATE` afterwards. Closing the receiver does not wait for the build.
   */
  enqueueLocal(configuration: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<Slot>;
  /** The host's own builds that wait for a slot or hold one, oldest first. */
  local(): readonly LocalJobView[];
}

/**
 * The facade, whose functions all fail with `STATE` once the receiver begins to close: an `async` one rejects. A later
 * answer would be out of date, and a later decision would not be stored.
 */
export function whileOpen<F extends object>(facade: F, closing: AbortSignal): F {
  const members = Object.entries(facade).map(([name, member]) => [
    name,
    unlessClosed(member as never, closing),
  ]);
  return Object.freeze(Object.fromEntries(members)) as F;
}

function unlessClosed(member: (...args: unknown[]) => unknown, closing: AbortSignal) {
  return (...args: unknown[]) => {
    if (!closing.aborted) return member(...args);
    const error = new ReceiverError('STATE', 'the receiver is closed');
    if (types.isAsyncFunction(member)) return Promise.reject(error);
    throw error;
  };
}

type Listen<E> = (listener: (event: E) => void) => () => void;

export function eventsOf(
  ...sources: readonly Listen<JobEvent | PairingEvent | SessionEvent>[]
): Listen<ReceiverEvent> {
  return (listener) => {
    const stops = sources.map((subscribe) => subscribe((event) => listener(eventView(event))));
    return () => stops.forEach((stop) => stop());
  };
}

const operator = 'operator';

export function pairingOf(pairing: PairingService): Pairing {
  return Object.freeze({
    open: (client = operator) => pairing.window.open(client),
    close: (client?: string) =>
      client === undefined ? pairing.window.closeAll() : pairing.window.close(client),
    closesInMs: () => pairing.window.closesInMs(),
    requests: () => pairing.pending().map(requestView),
    approve: async (id: string, pin: string, { by }: DecisionOptions = {}) =>
      peerView(await pairing.approve(dashboardId(id), pin, by), false),
    reject: (id: string, { by }: DecisionOptions = {}) => pairing.reject(dashboardId(id), by),
    armOneTimeKey: (show: (key: string) => void) => pairing.armOneTimeKey(show),
  });
}

export function jobsOf(jobs: JobService, paths: Paths): Jobs {
  return Object.freeze({
    list: () => jobs.list().map(jobView),
    get(id: string) {
      const record = jobs.get(id);
      return record && jobView(record);
    },
    cancel: (id: string) => jobs.cancel(id),
    local: () => jobs.local().map(localJobView),
    async enqueueLocal(...[configuration, options]: Parameters<Jobs['enqueueLocal']>) {
      paths.parseConfiguration(configuration);
      return jobs.enqueueLocal(configuration, options);
    },
  });
}

export function peersOf(
  table: PeerTable,
  pairing: PairingService,
  sessions: Pick<Sessions, 'isConnected'>,
  data: { cancelJobs(id: DashboardId): Promise<void> } & Pick<Owners, 'has' | 'remove'>,
): Peers {
  return Object.freeze({
    list: () => table.list().map((peer) => peerView(peer, sessions.isConnected(peer.dashboardId))),
    async revoke(text: string, { data: choice = 'delete', by }: Parameters<Peers['revoke']>[1] = {}) {
      const id = dashboardId(text);
      // The data of both can be in the same directory.
      if (table.hasTwin(id)) return false;
      const isKept = choice === 'keep';
      const had = isKept ? false : data.has(id);
      // Starts before the peers file is written, so a failed write does not prevent it.
      const removal = isKept ? data.cancelJobs(id) : data.remove(id);
      const [isRemoved, hadData] = await Promise.all([pairing.revoke(id, by), had, removal]);
      return isRemoved || hadData;
    },
  });
}
