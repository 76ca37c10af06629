/**
 * What a receiver is to those who mount it: contracts without code, so that the host's side of the house depends on
 * what is promised here and not on how the parts are wired.
 */
import type { Environment } from './esphome/environment.js';
import type { JobEvent, JobService } from './jobs/job-service.js';
import type { Slot } from './jobs/queue.js';
import type { ResolvedOptions } from './options/core.js';
import { type Paths, dashboardId, type DashboardId } from './paths/index.js';
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

/** What a mount needs of a receiver. */
export interface ReceiverCore {
  readonly options: ResolvedOptions;
  /** The resolver, for code that has no context at hand. */
  readonly paths: Paths;
  /** SHA-256 of the receiver's public key in lower-case hex: what people compare. */
  readonly pin: string;
  readonly pairing: Pairing;
  readonly peers: Peers;
  readonly jobs: Jobs;
  /** What is kept and what goes. */
  readonly retention: Retention;
  /** The host's own ESPHome, asked at most every 30 s. Throws `PROVISION` when there is none, or it does not answer. */
  esphomeVersion(): Promise<string>;
  /**
   * The complete environment of a configuration's compile. Local: the host's own, unchanged. Remote: an allow-list of
   * it, pinned to the build's data directory; the directories that it names (`HOME`, `TMPDIR`) are made when a build
   * begins. Throws `TRAVERSAL`, and `OPTIONS` for a variable that holds a NUL or a line end.
   */
  composeEnvironment(configuration: string): Environment;
  /**
   * Removes what was built for a peer's device, once no build of it runs; its configuration and sidecar stay. Never
   * `esphome clean`, which empties what devices share. Throws `STATE` for a local configuration, `TRAVERSAL`,
   * `LOCK_TIMEOUT`, and `CANCELLED` when the receiver is closed while it waits.
   */
  clean(configuration: string): Promise<void>;
  /** Removes all that is here of a peer's device, once no build of it runs. Nothing there is fine. Throws as `clean`. */
  removeDevice(configuration: string): Promise<void>;
  /** Takes a connection of the peer link over. */
  accept(transport: Transport): void;
  /**
   * A port of the receiver's own is open: from now on peers that stay away are called back, where the host wants that.
   * Of several ports the first is told.
   */
  callBackFrom(place: CallingPlace): void;
  /** Follows jobs, pairing and sessions. The function that it returns ends that. */
  subscribe(listener: (event: ReceiverEvent) => void): () => void;
  /** Ends sessions, builds and timers; resolves when nothing of it runs any more. */
  close(): Promise<void>;
}

/** The pairing window and its requests. */
export interface Pairing {
  /**
   * Opens the window for five minutes, or extends it. Each client has a share of its own, so that an operator's page that
   * closes does not shut the door on another's. `client` is any name; without one it is the host's share. Throws
   * `OPTIONS` for a name of over 64 characters, and for more than 64 of them.
   */
  open(client?: string): void;
  /** Gives that client's share up; without a name, closes the window for all. The last one drops who waits. */
  close(client?: string): void;
  /** When the window closes by itself, in milliseconds from now; 0 while it is closed. */
  closesInMs(): number;
  requests(): readonly RequestView[];
  /** Approves the request that has this pin. Throws `PAIRING` when there is none, `TRAVERSAL` for a bad id. */
  approve(dashboardId: string, pin: string, options?: DecisionOptions): Promise<PeerView>;
  /** Drops the request. False when there is none. Throws `TRAVERSAL` for a bad id. */
  reject(dashboardId: string, options?: DecisionOptions): boolean;
  /**
   * For a server without a screen: opens the window for 15 minutes for exactly one pairing, with a key that is
   * shown once. Throws `STATE` when a dashboard is paired already.
   */
  armOneTimeKey(show: (key: string) => void): void;
}

export interface DecisionOptions {
  /** Who decided, for the log. Default: the host. */
  readonly by?: string | undefined;
}

/** The approved dashboards. */
export interface Peers {
  list(): readonly PeerView[];
  /**
   * Ends the approval, the peer's session and its jobs; resolves when they have ended. Its builds and results are then
   * removed, unless they are to be kept: for the same key, should it pair again. Another key that pairs under the id has
   * them removed first, for ids are chosen by peers. Once more, it removes what was
   * kept. False when there is neither such a peer nor such data. Throws `TRAVERSAL`.
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
  /** Asks the job to stop. False when there is none, or it has ended. */
  cancel(id: string): boolean;
  /**
   * Waits for a slot for a build that the host runs by itself; it takes its turn with the builds of the peers, and
   * counts among them until it is released. To be released on every way out.
   * Rejects with the signal's reason, `TRAVERSAL`, `RESOURCE` when the disk is nearly full, `CANCELLED` when the
   * receiver is closed meanwhile, `STATE` afterwards. Closing the receiver does not wait for the build.
   */
  enqueueLocal(configuration: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<Slot>;
  /** The host's own builds that wait for a slot or have one, oldest first. */
  local(): readonly LocalJobView[];
}

/**
 * What a mount sees of the pairing pairing, the peers and the jobs: ids and configurations are checked here, once, and
 * nothing else of the parts can be reached.
 */

type Listen<E> = (listener: (event: E) => void) => () => void;

/** One stream of what jobs, pairing and sessions tell. */
export function eventsOf(
  ...sources: readonly Listen<JobEvent | PairingEvent | SessionEvent>[]
): Listen<ReceiverEvent> {
  return (listener) => {
    const stops = sources.map((subscribe) => subscribe((event) => listener(eventView(event))));
    return () => stops.forEach((stop) => stop());
  };
}

/** The window's share of the operator: one for all pages of the host. */
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
  sessions: Pick<Sessions, 'get'>,
  data: { cancelJobs(id: DashboardId): Promise<void> } & Pick<Owners, 'has' | 'remove'>,
): Peers {
  return Object.freeze({
    list: () => table.list().map((peer) => peerView(peer, sessions.get(peer.dashboardId) !== undefined)),
    async revoke(text: string, { data: wish = 'delete', by }: Parameters<Peers['revoke']>[1] = {}) {
      const id = dashboardId(text);
      // What would be removed may lie in the same directory as the other one's.
      if (table.hasTwin(id)) return false;
      const isKept = wish === 'keep';
      const had = isKept ? false : data.has(id);
      // Its work ends and goes whatever becomes of the file that says so.
      const leave = isKept ? data.cancelJobs(id) : data.remove(id);
      const [isRemoved, hadData] = await Promise.all([pairing.revoke(id, by), had, leave]);
      return isRemoved || hadData;
    },
  });
}
