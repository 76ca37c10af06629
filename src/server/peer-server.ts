/**
 * The receiver's side of the peer link: takes connections, answers them, and leads the sessions.
 *
 * It knows transports and no sockets, so that a host may bring the connections from wherever it has them.
 */
import { setMaxListeners } from 'node:events';

import type { Clock } from '../async/clock.js';
import { isReceiverError, type ErrorCode } from '../errors.js';
import type { JobEvent } from '../jobs/job-service.js';
import { isTerminal, type JobRecord } from '../jobs/record.js';
import { createRefusalLog, type Log } from '../log.js';
import type { BundleLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';
import type { Identity } from '../peers/identity.js';
import type { PairingCaller, PairingService } from '../peers/pairing.js';
import type { ReceiverChannel } from '../protocol/channel.js';
import type { IntentResponse } from '../protocol/constants.js';
import { respond } from '../protocol/handshake.js';
import { closeGraceMs, waitForClose } from '../protocol/heartbeat.js';
import type { Transport } from '../protocol/transport.js';
import {
  createStrangerPool,
  createUploads,
  type StrangerLimits,
  type LeavePool,
} from './connection-limits.js';
import { answerOf, decide, type ReceiverFacts } from './intents.js';
import { type PathStripper, queueStatusFrame, stateFrame } from './outbox.js';
import type { IsPlaceSafe, SessionJobs, NoRoomFor, OpenIntake, ResetBuilds } from './ports.js';
import { openSession } from './session.js';
import { createSessions, type SessionEvent, type Sessions } from './sessions.js';

export interface PeerServerOptions {
  readonly identity: Identity;
  readonly pairing: PairingService;
  readonly jobs: SessionJobs;
  readonly openIntake: OpenIntake;
  readonly bundleLimits: Pick<BundleLimits, 'packedBytes'>;
  readonly maxUploadsPerPeer: number;
  readonly isPlaceSafe: IsPlaceSafe;
  /** Default: there always is room. */
  readonly noRoomFor?: NoRoomFor | undefined;
  /** Default: nobody may, and nobody is told that he may. */
  readonly resetBuilds?: ResetBuilds | undefined;
  readonly about: ReceiverFacts;
  /** Applied to each line of output. Default: none. */
  readonly hidePlaces?: PathStripper;
  /** The version of the installed ESPHome. Asked for each connection, so it must answer within seconds. */
  readonly esphomeVersion: () => Promise<string>;
  /** Whether other versions are installed on demand. Asked as often; must not reject. Default: never. */
  readonly canProvision?: () => Promise<boolean>;
  /** Default: none yet. */
  readonly sessions?: Sessions;
  readonly log: Log;
  readonly clock: Clock;
  readonly connectionLimits: StrangerLimits;
}

export interface PeerServer {
  /** Takes a connection over, for good. Never throws. */
  accept(transport: Transport): void;
  isConnected(id: DashboardId): boolean;
  subscribe(listener: (event: SessionEvent) => void): () => void;
  /** Closes the pairing, tells all peers that the receiver ends, and waits until they are gone, at most 5 s. */
  close(): Promise<void>;
}

export function createPeerServer(options: PeerServerOptions): PeerServer {
  const { pairing, jobs, clock, log, connectionLimits } = options;
  const gate = createStrangerPool(connectionLimits, clock);
  const warnRefused = createRefusalLog(log, clock);
  const { sessions = createSessions(clock, log) } = options;
  const fanOut = startJobFanOut(jobs, sessions, options.hidePlaces ?? ((line) => line));
  const uploads = createUploads(options.maxUploadsPerPeer);
  const stopping = new AbortController();
  // Every handshake listens to it, and there may be more than ten.
  setMaxListeners(0, stopping.signal);
  /** Every accepted connection until it is gone. */
  const connections = new Map<Transport, Promise<void>>();
  const unsubscribe = pairing.subscribe((event) => {
    if (event.type === 'revoked') sessions.cutOff(event.dashboardId);
  });

  function accept(transport: Transport): void {
    if (stopping.signal.aborted) return transport.destroy();
    const leave = gate.enter(transport.remoteAddress, () => transport.destroy());
    if (leave === null) {
      const cause = 'too many unauthenticated connections or handshakes';
      warnRefused({ address: transport.remoteAddress, cause }, 'connection refused');
      return transport.destroy();
    }
    const served = serve(transport, leave)
      .catch((error: unknown) => {
        const facts = { error, address: transport.remoteAddress };
        if (isTheirs(error)) log.debug(facts, 'connection failed');
        else log.error(facts, 'connection failed: internal error');
        transport.destroy();
      })
      .finally(() => {
        leave();
        connections.delete(transport);
      });
    connections.set(transport, served);
  }

  async function serve(transport: Transport, leave: LeavePool): Promise<void> {
    const { signal } = stopping;
    const responded = await respond(transport, options.identity, {
      timeoutMs: connectionLimits.handshakeTimeoutMs,
      signal,
    });
    const { channel, intent } = responded;
    const [version, provisions = false] = await Promise.all([esphomeVersion(), options.canProvision?.()]);
    const decision = await decide(responded, pairing);
    if (decision) {
      const { response, reason } = decision;
      const facts = { intent, response, reason, address: channel.remoteAddress };
      if (refusals.has(response)) warnRefused(facts, 'connection refused');
      else log.info(facts, 'connection answered');
      const resets = options.resetBuilds !== undefined;
      channel.answer(answerOf(decision, responded, options.about, { version, provisions, resets }));
      if (decision.granted && (await lead(channel, decision.granted, leave))) return;
    }
    channel.close();
    await waitForClose(channel, clock);
  }

  async function esphomeVersion(): Promise<string> {
    try {
      return await options.esphomeVersion();
    } catch (error) {
      log.warn({ err: error }, 'ESPHome version check failed');
      return '';
    }
  }

  /** Leads the session to its end. False when the approval was withdrawn after the answer. */
  async function lead(channel: ReceiverChannel, caller: PairingCaller, leave: LeavePool): Promise<boolean> {
    const { dashboardId } = caller;
    const isFree = await sessions.isFree(dashboardId, channel.remoteAddress);
    const peer = pairing.seen(caller);
    if (!peer || stopping.signal.aborted) return false;
    if (!isFree) {
      channel.terminate('identity_in_use');
      await waitForClose(channel, clock);
      return true;
    }
    const peerLabel = peer.friendlyName || peer.label || dashboardId;
    const { mute } = fanOut;
    const session = openSession({ ...options, dashboardId, peerLabel, channel, uploads, mute, clock });
    leave();
    sessions.register(session);
    session.outbox.queueStatus(queueStatusFrame(jobs.queueStatus()));
    await session.ended;
    sessions.remove(session);
    return true;
  }

  async function close(): Promise<void> {
    stopping.abort();
    pairing.close();
    for (const session of sessions.list()) session.end('server_shutting_down');
    let cancelCut = (): void => {};
    const cut = new Promise<void>((resolve) => {
      cancelCut = clock.after(closeGraceMs, () => {
        for (const transport of connections.keys()) transport.destroy();
        resolve();
      });
    });
    await Promise.race([Promise.all(connections.values()), cut]);
    cancelCut();
    unsubscribe();
    fanOut.stop();
  }

  return {
    accept,
    isConnected: (id) => sessions.get(id) !== undefined,
    subscribe: (listener) => sessions.subscribe(listener),
    close,
  };
}

const refusals: ReadonlySet<IntentResponse> = new Set(['rejected', 'no_pairing_window']);

const theirCodes: ReadonlySet<ErrorCode> = new Set(['NOISE', 'PROTOCOL', 'CANCELLED']);

/** Whether a connection failed by what the other side did, or because the receiver ends: anybody can cause that. */
function isTheirs(error: unknown): boolean {
  return isReceiverError(error) && theirCodes.has(error.code);
}

/**
 * From the jobs to the sessions: each event of a job goes to the peer that ordered it, if it is there, under the id
 * that the peer gave. What happens while the peer is away is not repeated; it asks for its job again when it is back.
 */
export interface JobFanOut {
  /** Nothing more is sent about that job, whose peer's id now means another. It must not have ended yet. */
  mute(jobId: string): void;
  stop(): void;
}

function startJobFanOut(jobs: SessionJobs, sessions: Sessions, hidePlaces: PathStripper): JobFanOut {
  const muted = new Set<string>();

  function state(job: JobRecord): void {
    const frame = stateFrame(job);
    if (frame && !muted.has(job.id)) sessions.get(job.dashboardId)?.outbox.state(frame);
    if (isTerminal(job)) muted.delete(job.id);
  }

  const stop = jobs.subscribe((event: JobEvent) => {
    if (event.type === 'state') state(event.job);
    if (event.type === 'output' && !muted.has(event.job.id)) {
      const session = sessions.get(event.job.dashboardId);
      session?.outbox.output(event.job.peerJobId, hidePlaces(event.line, event.job));
    }
    if (event.type === 'queue') {
      const frame = queueStatusFrame(event.status);
      for (const session of sessions.list()) session.outbox.queueStatus(frame);
    }
  });
  return { mute: (jobId) => void muted.add(jobId), stop };
}
