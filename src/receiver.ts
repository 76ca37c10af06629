/**
 * Wires the parts into a receiver and owns their life. It knows no Koa and no socket library: a mount gives it
 * connections and shows what it says.
 */
import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';

import { systemClock } from './async/clock.js';
import { openThreadedIntake } from './bundles/threaded-intake.js';
import { cleanBuildDir } from './compile/build-dir.js';
import { isInside } from './disk/contained.js';
import { findEsphome } from './esphome/command.js';
import { createEnvironment } from './esphome/environment.js';
import { createChoice } from './jobs/choose-esphome.js';
import { openJobService } from './jobs/open-job-service.js';
import type { LeaseRequest } from './jobs/runner.js';
import { compilersPerBuild } from './jobs/slots.js';
import { type Lease, type LockTiming, acquireLease } from './locks/lease.js';
import { resolveOptions, type CoreOptions, type ResolvedOptions } from './options.js';
import {
  createPaths,
  explicitDataDir,
  type DashboardId,
  type Layout,
  type RemoteKey,
} from './paths/index.js';
import { remoteKeyOf } from './paths/resolver.js';
import { loadIdentity } from './peers/identity.js';
import { createPairingService } from './peers/pairing.js';
import { openPeerTable } from './peers/peers.js';
import { takeOver } from './peers/take-over.js';
import { machineOf } from './process/machine.js';
import {
  createInstalled,
  type InstalledEsphome,
  type InstalledOptions,
  createKnownVersion,
} from './provision/installed.js';
import { pythonOf } from './provision/python.js';
import { openReleases, type Releases } from './provision/releases.js';
import { type ReceiverCore, jobsOf, pairingOf, peersOf } from './receiver-api.js';
import { startRecovery } from './recovery.js';
import { createKeyChangeGuard, forgetJobs } from './retention/peer-data.js';
import { openRetentionService } from './retention/service.js';
import type { DeviceLease } from './retention/sweep.js';
import { createToolStore } from './retention/tool-store.js';
import { startConnectBack } from './server/connect-back-schedule.js';
import { createPathStripper, withRealPaths } from './server/outbox.js';
import { createPeerServer } from './server/peer-server.js';
import { createToolDirectories } from './toolchains/directories.js';

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
  const acquire = ({ key, reason, ...wish }: LeaseRequest & { deadlineMs?: number }): Promise<Lease> =>
    acquireLease({ ...wish, key, reason, locksDir: layout.locksDir, timing, log });
  const toolDirectories = createToolDirectories({ layout, timing, now: Date.now, log });
  const parts = { paths, composeEnvironment, chooseEsphome, acquire, timing, toolDirectories };
  const jobs = await openJobService({ ...options, ...parts });
  begun.push(() => jobs.close());
  const retentionService = await openRetentionService({
    ...{ paths, layout, jobs, underLease, log, now: Date.now, clock: systemClock },
    limits: options.retention,
    resultTtlMs: options.resultTtlMs,
    minFreeDiskBytes: options.minFreeDiskBytes,
    tools: createToolStore({ layout, directories: toolDirectories, timing, now: Date.now, log }),
  });
  begun.push(() => retentionService.close());
  const { owners } = retentionService;
  for (const { dashboardId: id, pin } of table.list()) await owners.adopt(id, pin);
  const keys = createKeyChangeGuard({
    peers: table.list,
    async forgetJobs(id) {
      link.cutOff(id);
      await forgetJobs(id, jobs);
    },
  });
  const pairing = createPairingService({
    ...{ clock: systemClock, limits: connectionLimits, log },
    peers: { ...table, reread: async () => table.reread().then(keys.check) },
    async beforeApproval(id, pin) {
      await owners.claim(id, pin);
      keys.note(id, pin);
    },
  });
  const link = createPeerServer({
    identity,
    pairing,
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
    noRoomFor: retentionService.noRoomFor,
    resetBuilds: options.peerReset === 'none' ? undefined : resetBuilds,
    about: {
      friendlyName: options.friendlyName,
      haAddon: options.haAddon,
      requiresPairingKey: options.pairingByKey,
    },
    hidePlaces: createPathStripper(
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
    return retentionService.resetPeers(ids);
  }
  async function underLease<T>(
    key: RemoteKey,
    reason: string,
    work: (lease: DeviceLease) => Promise<T>,
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
      await retentionService.remeasure(key);
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
    pairing: pairingOf(pairing),
    peers: peersOf(table, pairing, link, { ...owners, cancelJobs: jobs.cancelAllOf }),
    jobs: jobsOf(jobs, paths),
    retention: retentionService.retention,
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
        ...{ identity, table, pairing, link, clock: systemClock, log },
      });
    },
    subscribe(listener) {
      const stops = [jobs.subscribe(listener), pairing.subscribe(listener), link.subscribe(listener)];
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
      await retentionService.close();
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
