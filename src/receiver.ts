/**
 * Wires the parts into a receiver and owns their life. It knows no Koa and no socket library: a mount gives it
 * connections and shows what it says.
 */
import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';

import { openThreadedIntake } from './bundles/threaded-intake.js';
import { isInside } from './disk/contained.js';
import { createEnvironment, type Environment } from './esphome/environment.js';
import { findEsphome } from './esphome/command.js';
import { createInstalled, type InstalledEsphome, type InstalledOptions } from './esphome/installed.js';
import { createKnownVersion } from './esphome/known-version.js';
import { pythonOf } from './esphome/python.js';
import { openReleases, type Releases } from './esphome/releases.js';
import { createChoice } from './jobs/choose-esphome.js';
import type { JobEvent, JobRecord, Jobs, LocalJob } from './jobs/jobs.js';
import { openJobs } from './jobs/open.js';
import type { Slot } from './jobs/queue.js';
import { startRecovery } from './jobs/recovery.js';
import type { LeaseWish } from './jobs/runner.js';
import { compilersPerBuild } from './jobs/slots.js';
import { createHidePlaces, withRealPaths } from './link/hide-places.js';
import { createLink, type Link } from './link/link.js';
import type { Transport } from './link/transport.js';
import type { Lease, LockTiming } from './locks/lease.js';
import { acquireLease } from './locks/subtree-lease.js';
import { resolveOptions, type CoreOptions, type ResolvedOptions } from './options.js';
import {
  createPaths,
  dashboardId,
  explicitDataDir,
  type DashboardId,
  type Layout,
  type Paths,
  type RemoteKey,
} from './paths/index.js';
import { systemClock } from './peers/clock.js';
import { loadIdentity } from './peers/identity.js';
import { createPairingDesk, type PairingDesk, type PairingEvent } from './peers/pairing.js';
import type { Peer } from './peers/peer-row.js';
import { openPeerTable, type PeerTable } from './peers/peers.js';
import type { PendingPeer } from './peers/pending.js';
import { machineOf } from './process/machine.js';
import { removePeerData } from './retention/peer-data.js';

/** What a mount needs of a receiver. */
export interface ReceiverCore {
  readonly options: ResolvedOptions;
  readonly paths: Paths;
  /** SHA-256 of the receiver's public key in lower-case hex: what people compare. */
  readonly pin: string;
  readonly pairing: Pairing;
  readonly peers: Peers;
  readonly jobs: JobsView;
  /**
   * The complete environment of a configuration's compile: the host's own for a local one. The directories that it
   * names for a remote one (`HOME`, `TMPDIR`) are made when a build begins. Throws `TRAVERSAL`.
   */
  composeEnvironment(configuration: string): Environment;
  /** Runs `work` as the owner of a device's subtree, waiting for a build there to end. Throws `LOCK_TIMEOUT`. */
  underLease<T>(key: RemoteKey, reason: string, work: () => Promise<T>): Promise<T>;
  /** Takes a connection of the peer link over. */
  accept(transport: Transport): void;
  subscribe(listener: (event: ReceiverEvent) => void): () => void;
  /** Ends sessions, builds and timers; resolves when nothing of it runs any more. */
  close(): Promise<void>;
}

/** The pairing window and its requests. */
export interface Pairing {
  /** Opens the window for five minutes, or extends it. */
  open(): void;
  /** Closes it and drops the requests that wait. */
  close(): void;
  /** When the window closes by itself, in milliseconds from now; 0 while it is closed. */
  closesInMs(): number;
  requests(): readonly PendingPeer[];
  /** Approves the request that has this pin. Throws `PAIRING` when there is none, `TRAVERSAL` for a bad id. */
  approve(dashboardId: string, pin: string): Promise<Peer>;
  /** Drops the request. False when there is none. Throws `TRAVERSAL` for a bad id. */
  reject(dashboardId: string): boolean;
  /**
   * For a server without a screen: opens the window for 15 minutes for exactly one pairing, with a key that is
   * shown once. Throws `STATE` when a dashboard is paired already.
   */
  armOneTimeKey(show: (key: string) => void): void;
}

/** The approved dashboards. */
export interface Peers {
  list(): readonly PeerView[];
  /**
   * Ends the approval, the peer's session and its jobs, and removes its builds and results: ids are chosen by peers,
   * and the next one of that name must not find them. False when there is no such peer. Throws `TRAVERSAL`.
   */
  revoke(dashboardId: string): Promise<boolean>;
}

export interface PeerView extends Peer {
  /** Whether its session is open now. */
  readonly connected: boolean;
}

/** The builds, oldest first. */
export interface JobsView {
  list(): readonly JobRecord[];
  get(id: string): JobRecord | undefined;
  /** Asks the job to stop. False when there is none, or it has ended. */
  cancel(id: string): boolean;
  /**
   * Waits for a slot for a build that the host runs by itself; it takes its turn with the builds of the peers, and
   * counts among them until it is released. To be taken before `underLease`, and to be released on every way out.
   * Rejects with the signal's reason, `TRAVERSAL`, `RESOURCE` when the disk is nearly full, `CANCELLED` when the
   * receiver is closed meanwhile, `STATE` afterwards. Closing the receiver does not wait for the build.
   */
  enqueueLocal(configuration: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<Slot>;
  /** The host's own builds that wait for a slot or have one, oldest first. */
  local(): readonly LocalJob[];
}

export type ReceiverEvent = JobEvent | PairingEvent;

/** How long the host's own work waits for a build to end. */
const leaseDeadlineMs = 30_000;
/** The window's share of the operator: one for all pages of the host. */
const operator = 'operator';

/** Makes a receiver that is ready for connections. Throws `OPTIONS`, `STATE` and system errors. */
export async function openReceiver(wishes: CoreOptions): Promise<ReceiverCore> {
  const options = resolveOptions(wishes);
  const { log, environment } = options;
  const paths = createPaths({
    ...options,
    dataDir: options.dataDir ?? explicitDataDir(environment),
    buildPath: environment['ESPHOME_BUILD_PATH'],
  });
  const { layout } = paths;
  for (const directory of [options.stateDir, ...ownDirectories(layout)]) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  }
  const composeEnvironment = createEnvironment({
    paths,
    hostEnvironment: environment,
    pass: options.passEnvironment,
    compilers: compilersPerBuild(options.slots, machineOf()),
  });
  const own: InstalledOptions = {
    option: options.esphome,
    env: environment,
    probeEnv: { PATH: environment['PATH'] ?? '', HOME: layout.receiverDir, PYTHONNOUSERSITE: '1' },
  };
  const identity = await loadIdentity(options.stateDir, log);
  const table = await openPeerTable(options.stateDir, log);
  const desk = createPairingDesk({ peers: table, clock: systemClock, log });
  const staleMs = options.lockStaleMs;
  const timing = { staleMs, updateMs: Math.max(1_000, Math.floor(staleMs / 4)) };
  const releases = options.provisionVersions ? releasesOf(options, layout, timing, own) : null;
  const installed = createInstalled(own);
  const chooseEsphome = createChoice({ installed, releases });
  const acquire = ({ key, reason, ...wish }: LeaseWish & { deadlineMs?: number }): Promise<Lease> =>
    acquireLease({ ...wish, key, reason, locksDir: layout.locksDir, timing, log });
  const jobs = await openJobs({ ...options, paths, composeEnvironment, chooseEsphome, acquire, timing });
  const link = createLink({
    identity,
    desk,
    jobs,
    openIntake(configurationFilename) {
      installed.prepare();
      const { bundleLimits: limits } = options;
      return openThreadedIntake({ uploadsDir: layout.uploadsDir, configurationFilename, limits, log });
    },
    maxBundleBytes: options.bundleLimits.packedBytes,
    maxUploadsPerPeer: options.maxUploadsPerPeer,
    isPlaceSafe: (key) => isInside(layout.buildsDir, layout.subtree(key)),
    about: {
      friendlyName: options.friendlyName,
      haAddon: options.haAddon,
      requiresPairingKey: options.pairingByKey,
    },
    hidePlaces: createHidePlaces(
      layout,
      await withRealPaths([paths.buildsDir, paths.configDir, options.stateDir, homedir()]),
    ),
    esphomeVersion: createKnownVersion(() => versionOf(installed)),
    canProvision: async () => (await releases?.canInstall()) ?? false,
    log,
  });
  const stopNoting = link.subscribe(({ dashboardId: id, connected }) => jobs.notePeer(id, connected));
  async function underLease<T>(key: RemoteKey, reason: string, work: () => Promise<T>): Promise<T> {
    const { signal } = new AbortController();
    const lease = await acquire({ key, reason, signal, deadlineMs: leaseDeadlineMs });
    try {
      await lease.confirm();
      return await work();
    } finally {
      await lease.release();
    }
  }
  const forget = (id: DashboardId): Promise<void> => removePeerData(id, { layout, jobs, underLease, log });
  const jobIds = (): string[] => jobs.list().map(({ id }) => id);
  const recovery = await startRecovery({ layout, stateDir: options.stateDir, timing, jobIds, log });

  return Object.freeze({
    options,
    paths,
    pin: identity.pin,
    pairing: pairingOf(desk),
    peers: peersOf(table, desk, link, forget),
    jobs: jobsOf(jobs, paths),
    composeEnvironment,
    underLease,
    accept: link.accept,
    subscribe(listener) {
      const stops = [jobs.subscribe(listener), desk.subscribe(listener)];
      return () => stops.forEach((stop) => stop());
    },
    async close() {
      await link.close();
      stopNoting();
      installed.close();
      await jobs.close();
      await releases?.close();
      await recovery.close();
      await table.close();
    },
  } satisfies ReceiverCore);
}

function ownDirectories(layout: Layout): string[] {
  const { locksDir, uploadsDir, jobsDir, artifactsDir, trashDir, venvsDir, toolchainsDir } = layout;
  return [locksDir, uploadsDir, jobsDir, artifactsDir, trashDir, venvsDir, toolchainsDir];
}

async function versionOf(installed: InstalledEsphome): Promise<string> {
  const { version } = await installed.ask(new AbortController().signal);
  return version;
}

function releasesOf(
  { maxVersions: maxKept, environment: env, log }: ResolvedOptions,
  { venvsDir, locksDir }: Layout,
  timing: LockTiming,
  own: InstalledOptions,
): Releases {
  return openReleases({
    ...{ venvsDir, locksDir, timing, maxKept, env, log },
    async pythons() {
      const command = await findEsphome(own);
      return command === null ? [] : pythonOf(command);
    },
  });
}

function pairingOf(desk: PairingDesk): Pairing {
  return Object.freeze({
    open: () => desk.window.open(operator),
    close: () => desk.window.closeAll(),
    closesInMs: () => desk.window.closesInMs(),
    requests: () => desk.pending(),
    approve: async (id: string, pin: string) => desk.approve(dashboardId(id), pin),
    reject: (id: string) => desk.reject(dashboardId(id)),
    armOneTimeKey: (show: (key: string) => void) => desk.armOneTimeKey(show),
  });
}

function jobsOf({ list, get, cancel, local, enqueueLocal }: Jobs, paths: Paths): JobsView {
  return Object.freeze({
    ...{ list, get, cancel, local },
    async enqueueLocal(...[configuration, options]: Parameters<JobsView['enqueueLocal']>) {
      paths.parseConfiguration(configuration);
      return enqueueLocal(configuration, options);
    },
  });
}

function peersOf(
  table: PeerTable,
  desk: PairingDesk,
  link: Link,
  forget: (id: DashboardId) => Promise<void>,
): Peers {
  return Object.freeze({
    list: () => table.list().map((peer) => ({ ...peer, connected: link.isConnected(peer.dashboardId) })),
    async revoke(text: string) {
      const id = dashboardId(text);
      // Its work ends and goes whatever becomes of the file that says so.
      const [isRemoved] = await Promise.all([desk.revoke(id), forget(id)]);
      return isRemoved;
    },
  });
}
