/**
 * Creates the parts of a receiver, connects them and ends them. It knows neither Koa nor a socket library: a mount provides
 * the connections and shows the events.
 */
import { readdir } from 'node:fs/promises';
import { homedir } from 'node:os';

import { systemClock as clock } from './async/clock.js';
import { createDisposer, type Disposer } from './async/disposer.js';
import { openThreadedIntake } from './bundles/threaded-intake.js';
import { makeDirectory } from './disk/atomic-write.js';
import { isInside } from './disk/contained.js';
import { createReserve, type Reserve } from './disk/reserve.js';
import { ReceiverError } from './errors.js';
import { checkEnvironment, createEnvironment } from './esphome/environment.js';
import { openEsphome } from './jobs/choose-esphome.js';
import { devicesOnDisk } from './jobs/devices-on-disk.js';
import type { JobService } from './jobs/job-service.js';
import { openJobService } from './jobs/open-job-service.js';
import type { LeaseRequest } from './jobs/runner.js';
import { type Lease, acquireLease, forgetLease } from './locks/lease.js';
import { lockTiming, type ResolvedOptions } from './options/core.js';
import {
  createPaths,
  explicitDataDir,
  type DashboardId,
  type Layout,
  type Paths,
  type RemoteKey,
} from './paths/index.js';
import {
  keepTrust,
  laneFacts,
  loadFurtherLanes,
  loadIdentity,
  type Identity,
  type Lane,
  type LaneFault,
} from './peers/identity.js';
import { createPairingService, type PairingService } from './peers/pairing.js';
import { hasPeers, openPeerTable, type PeerTable } from './peers/peers.js';
import { takeOver } from './peers/take-over.js';
import { compilersPerBuild, machineOf } from './process/machine.js';
import { type ReceiverCore, eventsOf, jobsOf, pairingOf, peersOf, whileOpen } from './receiver-api.js';
import { startRecovery } from './recovery.js';
import { createKeyChangeGuard, forgetJobs, type Owners } from './retention/peer-data.js';
import { openRetentionService } from './retention/service.js';
import { createToolStore } from './retention/tool-store.js';
import { startConnectBack } from './server/connect-back-schedule.js';
import { createPathStripper, withRealPaths } from './server/outbox.js';
import { createPeerServer } from './server/peer-server.js';
import { createSessions, type Sessions } from './server/sessions.js';
import { createToolDirectories } from './toolchains/directories.js';

/** How long operations of the host wait for a build to end. */
const leaseDeadlineMs = 30_000;
/** What starts programs is loaded a moment after the start, which it would make longer by half. */
const loadDelayMs = 1_000;

/** Creates a receiver that is ready for connections. Throws `STATE` and system errors, with no part left running. */
export async function openReceiver(options: ResolvedOptions): Promise<ReceiverCore> {
  const { layout } = pathsOf(options);
  const reserve = createReserve([layout.receiverDir, options.stateDir], options.log);
  return reserve.spend(() => tryToOpen(options, reserve));
}

async function tryToOpen(options: ResolvedOptions, reserve: Reserve): Promise<ReceiverCore> {
  const ends = createDisposer();
  /** Aborted before the ends run, which ends all waits for a device's lease. */
  const closing = new AbortController();
  try {
    return await assemble(options, reserve, ends, closing);
  } catch (error) {
    closing.abort();
    await ends.dispose().catch((err: unknown) => {
      options.log.error({ err }, 'cleanup after a failed start failed');
    });
    throw error;
  }
}

/** Each part registers its end as soon as it has started; the ends run in reverse order. */
async function assemble(
  options: ResolvedOptions,
  reserve: Reserve,
  ends: Disposer,
  closing: AbortController,
): Promise<ReceiverCore> {
  const { log, stateDir } = options;
  await checkEnvironment(options);
  const paths = pathsOf(options);
  const { layout } = paths;
  await makeDirectories([stateDir, ...layout.ownDirectories]);
  const timing = lockTiming(options.lockStaleMs);
  const acquire = (request: LeaseRequest & { deadlineMs?: number }): Promise<Lease> =>
    acquireLease({ ...request, locksDir: layout.locksDir, timing, log });

  const { identity, table, lanes } = await openTrust(options, layout, reserve, ends);
  const sessions = createSessions(clock, log);
  const esphome = openEsphome(options, { layout, timing, clock, ends });
  const compilers = compilersPerBuild(options.slots, machineOf());
  const composeEnvironment = createEnvironment({ ...options, paths, compilers });
  const toolDirectories = createToolDirectories({ layout, timing, clock, log });
  const jobs = await openJobService({
    ...options,
    ...{ paths, composeEnvironment, chooseEsphome: esphome.choose, acquire, timing, toolDirectories, clock },
  });
  ends.add(() => jobs.close());
  const retentionService = await openRetentionService({
    ...options,
    ...{ paths, layout, jobs, underLease, reserve, clock },
    forgetLock: (key) => forgetLease({ key, locksDir: layout.locksDir, timing, log }),
    tools: createToolStore({ layout, directories: toolDirectories, timing, clock, log }),
  });
  ends.add(() => retentionService.close());
  // Retention records what builds leave on disk until the last one has stopped.
  ends.add(() => jobs.suspend());
  const pairing = await openPairing(options, { table, jobs, sessions, owners: retentionService.owners });
  const server = createPeerServer({
    ...options,
    ...{ pairing, jobs, sessions, clock, about: options },
    lanes: lanes.filter((lane) => 'identity' in lane),
    openIntake(request, onRefused) {
      if (request.target === 'clean') reserve.makeRoom();
      esphome.installed.prepare();
      const { bundleLimits } = options;
      return openThreadedIntake({
        ...{
          uploadsDir: layout.uploadsDir,
          configurationFilename: request.file,
          bundleLimits,
          onRefused,
          log,
        },
        room: retentionService.openRoom(request),
      });
    },
    isPlaceSafe: (key) => isInside(layout.buildsDir, layout.subtree(key)),
    noRoomFor: retentionService.noRoomFor,
    resetBuilds: options.peerReset === 'none' ? undefined : resetBuilds,
    stripPaths: createPathStripper(
      layout,
      await withRealPaths([paths.buildsDir, paths.configDir, stateDir, homedir()]),
    ),
    esphomeVersion: esphome.version,
    canProvision: async () => (await esphome.releases?.canInstall()) ?? false,
  });
  ends.add(() => server.close());
  ends.add(
    sessions.subscribe((event) => {
      if (event.type === 'session') jobs.setPeerConnected(event.dashboardId, event.connected);
    }),
  );
  const jobIds = (): string[] => jobs.list().map(({ id }) => id);
  const recovery = await startRecovery({ layout, stateDir, timing, jobIds, log });
  ends.add(() => recovery.close());

  /** Removes the builds of this peer, or of all peers if the operator allows it. New jobs wait for their device. */
  function resetBuilds(peer: DashboardId): Promise<void> | null {
    const ids = options.peerReset === 'own' ? [peer] : table.list().map(({ dashboardId: id }) => id);
    return retentionService.resetPeers(ids);
  }
  async function underLease<T>(
    key: RemoteKey,
    reason: string,
    work: (lease: Lease) => Promise<T>,
    deadlineMs = leaseDeadlineMs,
  ): Promise<T> {
    const lease = await reserve.spend(() => acquire({ key, reason, signal: closing.signal, deadlineMs }));
    try {
      await lease.confirm();
      return await work(lease);
    } finally {
      await lease.release();
    }
  }
  await reserve.refill();
  const { buildsDir } = paths;
  const peers = table.list().length;
  const { slots } = options;
  const facts = { pin: identity.pin, buildsDir, stateDir, slots, lanes: lanes.length, peers };
  log.info(facts, 'receiver started');
  // Node does not repeat a failed import, so this one must not wait until descriptors run short.
  ends.add(clock.after(loadDelayMs, () => void import('execa').catch(() => {})));
  if (lanes.length === 1 && slots > 1)
    log.info({ slots }, 'one lane for several slots: a dashboard uses one slot at a time');
  let isCalling = false;

  return Object.freeze({
    options,
    paths,
    pin: identity.pin,
    lanes: lanes.map(laneFacts),
    pairing: whileOpen(pairingOf(pairing), closing.signal),
    peers: whileOpen(
      peersOf(table, pairing, sessions, { ...retentionService.owners, cancelJobs: jobs.cancelAllOf }),
      closing.signal,
    ),
    jobs: whileOpen(jobsOf(jobs, paths), closing.signal),
    retention: whileOpen(retentionService.retention, closing.signal),
    esphomeVersion: esphome.version,
    ...whileOpen(
      {
        composeEnvironment,
        clean: retentionService.clean,
        removeDevice: retentionService.removeDevice,
        subscribe: eventsOf(jobs.subscribe, pairing.subscribe, sessions.subscribe),
      },
      closing.signal,
    ),
    accept: server.accept,
    callBackFrom(place) {
      if (!options.connectBack || closing.signal.aborted || isCalling) return;
      isCalling = true;
      ends.add(startConnectBack({ ...place, ...{ identity, table, pairing, sessions, clock, log } }));
    },
    async close() {
      const isFirst = !closing.signal.aborted;
      closing.abort();
      await ends.dispose();
      if (isFirst) log.info({}, 'receiver closed');
    },
  } satisfies ReceiverCore);
}

function pathsOf(options: ResolvedOptions): Paths {
  const { environment } = options;
  return createPaths({
    ...options,
    dataDir: options.dataDir ?? explicitDataDir(environment),
    buildPath: environment['ESPHOME_BUILD_PATH'],
  });
}

async function makeDirectories(directories: readonly string[]): Promise<void> {
  await Promise.all(directories.map((directory) => makeDirectory(directory)));
}

async function openTrust(
  options: ResolvedOptions,
  layout: Layout,
  { spend }: Reserve,
  ends: Disposer,
): Promise<{ identity: Identity; lanes: (Lane | LaneFault)[]; table: PeerTable }> {
  const { stateDir, takeOver: from, newIdentity, friendlyName, log } = options;
  if (from !== undefined) await takeOver({ from, stateDir, newIdentity, log });
  const isReliedOn = (): Promise<boolean> => hasBuilds(layout);
  const identity = await loadIdentity(stateDir, log, {
    newIdentity,
    isReliedOn: async () => (await hasPeers(stateDir)) || (await isReliedOn()),
  });
  const table = await openPeerTable(stateDir, { clock, log, newIdentity, isReliedOn, spend });
  ends.add(() => table.close());
  const lanes = [{ number: 1, identity, friendlyName }, ...(await loadFurtherLanes(options))];
  const kept = lanes.filter((lane) => 'identity' in lane);
  ends.add(keepTrust(stateDir, kept, { reread: table.reread, clock, log }));
  return { identity, lanes, table };
}

/** Whether builds of dashboards exist, which must have been paired then. */
async function hasBuilds({ buildsDir, ownersDir }: Layout): Promise<boolean> {
  const owners = (await readdir(ownersDir)).filter((name) => name.endsWith('.json'));
  return owners.length > 0 || (await devicesOnDisk(buildsDir)).keys.length > 0;
}

/** Opens pairing such that the data stored under an id belongs to one key. */
async function openPairing(
  { connectionLimits, log }: ResolvedOptions,
  parts: { table: PeerTable; jobs: JobService; sessions: Sessions; owners: Owners },
): Promise<PairingService> {
  const { table, jobs, sessions, owners } = parts;
  /** Peers whose data could not be claimed at the start. */
  const unclaimed = new Map<DashboardId, string>();
  for (const { dashboardId: id, pin } of table.list())
    if (!(await owners.adopt(id, pin))) unclaimed.set(id, pin);
  const keys = createKeyChangeGuard({
    peers: table.list,
    async forgetJobs(id) {
      sessions.cutOff(id);
      await forgetJobs(id, jobs);
    },
  });
  return createPairingService({
    ...{ clock, connectionLimits, log },
    peers: { ...table, reread: async () => table.reread().then(keys.check) },
    async assertReady(id) {
      const pin = unclaimed.get(id);
      if (pin === undefined || table.get(id)?.pin !== pin) return;
      if (await owners.adopt(id, pin)) unclaimed.delete(id);
      else if (await owners.isForeign(id, pin))
        throw new ReceiverError('STATE', 'the data of another key under this id is not removed yet');
    },
    async beforeApproval(id, pin) {
      await owners.claim(id, pin);
      keys.recordKey(id, pin);
    },
  });
}
