/**
 * Wires the parts into a receiver and owns their life. It knows no Koa and no socket library: a mount gives it
 * connections and shows what it says.
 */
import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';

import type { ReceiverCore } from './core.js';
import { cleanBuildDir } from './compile/build-dir.js';
import { openThreadedIntake } from './bundles/threaded-intake.js';
import { isInside } from './disk/contained.js';
import { createEnvironment } from './esphome/environment.js';
import { findEsphome } from './esphome/command.js';
import { createInstalled, type InstalledEsphome, type InstalledOptions } from './esphome/installed.js';
import { createKnownVersion } from './esphome/known-version.js';
import { pythonOf } from './esphome/python.js';
import { openReleases, type Releases } from './esphome/releases.js';
import { createChoice } from './jobs/choose-esphome.js';
import { openJobs } from './jobs/open.js';
import { startRecovery } from './jobs/recovery.js';
import type { LeaseWish } from './jobs/runner.js';
import { compilersPerBuild } from './jobs/slots.js';
import { createToolDirectories } from './jobs/tool-directories.js';
import { startConnectBack } from './link/connect-back-start.js';
import { createHidePlaces, withRealPaths } from './link/hide-places.js';
import { createLink } from './link/link.js';
import type { Lease, LockTiming } from './locks/lease.js';
import { acquireLease } from './locks/subtree-lease.js';
import { resolveOptions, type CoreOptions, type ResolvedOptions } from './options.js';
import {
  createPaths,
  explicitDataDir,
  type DashboardId,
  type Layout,
  type RemoteKey,
} from './paths/index.js';
import { remoteKeyOf } from './paths/remote-key.js';
import { systemClock } from './peers/clock.js';
import { loadIdentity } from './peers/identity.js';
import { createPairingDesk } from './peers/pairing.js';
import { openPeerTable } from './peers/peers.js';
import { takeOver } from './peers/take-over.js';
import { machineOf } from './process/machine.js';
import { createKnownKeys } from './retention/known-keys.js';
import { forgetJobs } from './retention/peer-data.js';
import type { LeaseOfDevice } from './retention/remove-device.js';
import { openKeeper } from './retention/retention.js';
import { createToolShelf } from './retention/tool-shelf.js';
import { jobsOf, pairingOf, peersOf } from './views.js';

/** How long the host's own work waits for a build to end. */
const leaseDeadlineMs = 30_000;

/** Makes a receiver that is ready for connections. Throws `OPTIONS`, `STATE` and system errors; nothing runs then. */
export async function openReceiver(wishes: CoreOptions): Promise<ReceiverCore> {
  /** How to end what has begun, in the order in which it began. */
  const begun: (() => Promise<void> | void)[] = [];
  try {
    return await assemble(wishes, begun);
  } catch (error) {
    for (const end of begun.toReversed()) await end();
    throw error;
  }
}

async function assemble(wishes: CoreOptions, begun: (() => Promise<void> | void)[]): Promise<ReceiverCore> {
  const options = resolveOptions(wishes);
  const { log, environment } = options;
  const paths = createPaths({
    ...options,
    dataDir: options.dataDir ?? explicitDataDir(environment),
    buildPath: environment['ESPHOME_BUILD_PATH'],
  });
  const { layout } = paths;
  const directories = [options.stateDir, ...layout.ownDirectories];
  await Promise.all(directories.map((directory) => mkdir(directory, { recursive: true, mode: 0o700 })));
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
  const { stateDir, takeOver: from } = options;
  if (from !== undefined) await takeOver({ from, stateDir, log });
  const identity = await loadIdentity(stateDir, log);
  const table = await openPeerTable(stateDir, log);
  begun.push(() => table.close());
  const { connectionLimits } = options;
  const staleMs = options.lockStaleMs;
  const timing = { staleMs, updateMs: Math.max(1_000, Math.floor(staleMs / 4)) };
  const releases = options.provisionVersions ? releasesOf(options, layout, timing, own) : null;
  const installed = createInstalled(own);
  begun.push(
    async () => releases?.close(),
    () => installed.close(),
  );
  const esphomeVersion = createKnownVersion(() => versionOf(installed));
  const chooseEsphome = createChoice({ installed, releases });
  const acquire = ({ key, reason, ...wish }: LeaseWish & { deadlineMs?: number }): Promise<Lease> =>
    acquireLease({ ...wish, key, reason, locksDir: layout.locksDir, timing, log });
  const toolDirectories = createToolDirectories({ layout, timing, now: Date.now, log });
  const parts = { paths, composeEnvironment, chooseEsphome, acquire, timing, toolDirectories };
  const jobs = await openJobs({ ...options, ...parts });
  begun.push(() => jobs.close());
  const keeper = await openKeeper({
    ...{ paths, layout, jobs, underLease, log, now: Date.now, clock: systemClock },
    limits: options.retention,
    resultTtlMs: options.resultTtlMs,
    minFreeDiskBytes: options.minFreeDiskBytes,
    tools: createToolShelf({ layout, directories: toolDirectories, timing, now: Date.now, log }),
  });
  begun.push(() => keeper.close());
  const { owners } = keeper;
  for (const { dashboardId: id, pin } of table.list()) await owners.adopt(id, pin);
  const keys = createKnownKeys({
    peers: table.list,
    async forgetJobs(id) {
      link.cutOff(id);
      await forgetJobs(id, jobs);
    },
  });
  const desk = createPairingDesk({
    ...{ clock: systemClock, limits: connectionLimits, log },
    peers: { ...table, reread: async () => table.reread().then(keys.check) },
    async beforeApproval(id, pin) {
      await owners.claim(id, pin);
      keys.note(id, pin);
    },
  });
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
    limits: connectionLimits,
    isPlaceSafe: (key) => isInside(layout.buildsDir, layout.subtree(key)),
    noRoomFor: keeper.noRoomFor,
    resetBuilds: options.peerReset === 'none' ? undefined : resetBuilds,
    about: {
      friendlyName: options.friendlyName,
      haAddon: options.haAddon,
      requiresPairingKey: options.pairingByKey,
    },
    hidePlaces: createHidePlaces(
      layout,
      await withRealPaths([paths.buildsDir, paths.configDir, options.stateDir, homedir()]),
    ),
    esphomeVersion,
    canProvision: async () => (await releases?.canInstall()) ?? false,
    log,
  });
  begun.push(() => link.close());
  const stopNoting = link.subscribe((event) => {
    if (event.type === 'session') jobs.notePeer(event.dashboardId, event.connected);
  });
  /** Of one peer or of all, as the operator allows. A job that comes meanwhile waits for its device. */
  function resetBuilds(peer: DashboardId): Promise<void> | null {
    const ids = options.peerReset === 'own' ? [peer] : table.list().map(({ dashboardId: id }) => id);
    return keeper.resetPeers(ids);
  }
  async function underLease<T>(
    key: RemoteKey,
    reason: string,
    work: (lease: LeaseOfDevice) => Promise<T>,
    deadlineMs = leaseDeadlineMs,
  ): Promise<T> {
    const { signal } = new AbortController();
    const lease = await acquire({ key, reason, signal, deadlineMs });
    try {
      await lease.confirm();
      return await work(lease);
    } finally {
      await lease.release();
    }
  }
  /** The host may do anything there, so it is measured afterwards. */
  async function forHost<T>(key: RemoteKey, reason: string, work: () => Promise<T>): Promise<T> {
    try {
      return await underLease(key, reason, work);
    } finally {
      await keeper.remeasure(key);
    }
  }
  let stopConnectBack: (() => Promise<void>) | undefined;
  let isClosed = false;
  const jobIds = (): string[] => jobs.list().map(({ id }) => id);
  const recovery = await startRecovery({ layout, stateDir, timing, jobIds, log });

  return Object.freeze({
    options,
    paths,
    pin: identity.pin,
    pairing: pairingOf(desk),
    peers: peersOf(table, desk, link, { ...owners, cancelJobs: jobs.cancelAllOf }),
    jobs: jobsOf(jobs, paths),
    retention: keeper.retention,
    esphomeVersion,
    composeEnvironment,
    async clean(configuration) {
      await forHost(remoteKeyOf(paths, configuration), 'the build is being removed', () =>
        cleanBuildDir(paths, configuration),
      );
    },
    underLease: forHost,
    accept: link.accept,
    callBackFrom(place) {
      if (!options.connectBack || isClosed) return;
      stopConnectBack ??= startConnectBack({
        ...place,
        ...{ identity, table, desk, link, clock: systemClock, log },
      });
    },
    subscribe(listener) {
      const stops = [jobs.subscribe(listener), desk.subscribe(listener), link.subscribe(listener)];
      return () => stops.forEach((stop) => stop());
    },
    async close() {
      isClosed = true;
      await stopConnectBack?.();
      await link.close();
      stopNoting();
      installed.close();
      await jobs.close();
      await releases?.close();
      await keeper.close();
      await recovery.close();
      await table.close();
    },
  } satisfies ReceiverCore);
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
