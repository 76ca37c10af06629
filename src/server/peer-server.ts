/**
 * The receiver's side of the peer link: accepts connections, answers them, and runs the sessions. It knows transports but
 * no sockets, so a host can provide connections from any source.
 */
import { setMaxListeners } from 'node:events';

import type { ReleasePlace } from '../async/fair-pool.js';
import { isReceiverError, type ErrorCode } from '../errors.js';
import type { JobEvent } from '../jobs/lifecycle.js';
import { isTerminal, type JobRecord } from '../jobs/record.js';
import { createRefusalLog } from '../log.js';
import type { Lane } from '../peers/identity.js';
import type { PairingCaller, PairingService } from '../peers/pairing.js';
import type { ReceiverChannel } from '../protocol/channel.js';
import type { IntentResponse } from '../protocol/constants.js';
import { respond } from '../protocol/handshake.js';
import { closeGraceMs, waitForClose } from '../protocol/heartbeat.js';
import type { Transport } from '../protocol/transport.js';
import { createStrangerPool, createUploads, type StrangerLimits } from './connection-limits.js';
import { answerOf, decide, type ReceiverFacts } from './intents.js';
import { type PathStripper, queueStatusFrame, stateFrame } from './outbox.js';
import type { SessionJobs, SessionPorts } from './ports.js';
import { openSession } from './session.js';
import type { Sessions } from './sessions.js';

export interface PeerServerOptions extends SessionPorts {
  /** At least the first. */
  readonly lanes: readonly Lane[];
  readonly pairing: PairingService;
  readonly maxUploadsPerPeer: number;
  readonly about: ReceiverFacts;
  /** Applied to each line of output. Default: none. */
  readonly stripPaths?: PathStripper;
  /** The version of the installed ESPHome. Called for each connection, so it must resolve within seconds. */
  readonly esphomeVersion: () => Promise<string>;
  /** Whether other versions are installed on demand. Called as often; must not reject. Default: never. */
  readonly canProvision?: () => Promise<boolean>;
  readonly sessions: Sessions;
  readonly connectionLimits: StrangerLimits;
}

export type PeerServer = ReturnType<typeof createPeerServer>;

export function createPeerServer(options: PeerServerOptions) {
  const { lanes, pairing, jobs, sessions, clock, log, connectionLimits } = options;
  const strangers = createStrangerPool(connectionLimits, clock);
  const warnRefused = createRefusalLog(log, clock);
  const fanOut = startJobFanOut(jobs, sessions, options.stripPaths ?? ((line) => line), lanes.length);
  const uploads = createUploads(options.maxUploadsPerPeer);
  const stopping = new AbortController();
  // Every handshake adds a listener, and more than ten can run at once.
  setMaxListeners(0, stopping.signal);
  /** Every accepted connection until it has closed. */
  const connections = new Map<Transport, Promise<void>>();
  const unsubscribe = pairing.subscribe((event) => {
    if (event.type === 'revoked') sessions.cutOff(event.dashboardId);
  });

  /** Takes over a connection to the lane with this number. Never throws. */
  function accept(transport: Transport, number = 1): void {
    const lane = lanes.find((each) => each.number === number);
    if (stopping.signal.aborted || lane === undefined) return transport.destroy();
    const release = strangers.enter(transport.remoteAddress, () => transport.destroy());
    if (release === null) {
      const cause = 'too many unauthenticated connections or handshakes';
      warnRefused({ address: transport.remoteAddress, cause }, 'connection refused');
      return transport.destroy();
    }
    const served = serve(transport, lane, release)
      .catch((err: unknown) => {
        const facts = { err, address: transport.remoteAddress };
        if (isCausedByPeer(err)) log.debug(facts, 'connection failed');
        else log.error(facts, 'connection failed: internal error');
        transport.destroy();
      })
      .finally(() => {
        release();
        connections.delete(transport);
      });
    connections.set(transport, served);
  }

  async function serve(transport: Transport, lane: Lane, release: ReleasePlace): Promise<void> {
    const { signal } = stopping;
    const responded = await respond(transport, lane.identity, {
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
      const about = { ...options.about, friendlyName: lane.friendlyName };
      channel.answer(answerOf(decision, responded, about, { version, provisions, resets }));
      if (decision.granted && (await runSession(channel, decision.granted, lane.number, release))) return;
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

  /** Resolves when the session has ended; false when the approval was withdrawn after the answer. */
  async function runSession(
    channel: ReceiverChannel,
    caller: PairingCaller,
    lane: number,
    release: ReleasePlace,
  ): Promise<boolean> {
    const { dashboardId } = caller;
    const isFree = await sessions.isFree(dashboardId, lane, channel.remoteAddress);
    const peer = pairing.seen(caller);
    if (!peer || stopping.signal.aborted) return false;
    if (!isFree) {
      channel.terminate('identity_in_use');
      await waitForClose(channel, clock);
      return true;
    }
    const peerLabel = peer.friendlyName || peer.label || dashboardId;
    const { mute } = fanOut;
    const session = openSession({ ...options, dashboardId, lane, peerLabel, channel, uploads, mute, clock });
    release();
    sessions.register(session);
    session.outbox.queueStatus(queueStatusFrame(jobs.queueStatus(), lanes.length));
    await session.ended;
    sessions.remove(session);
    return true;
  }

  /** Closes pairing, tells all peers that the receiver stops, and waits up to 5 s for their connections to close. */
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

  return { accept, close };
}

const refusals: ReadonlySet<IntentResponse> = new Set(['rejected', 'no_pairing_window']);

const peerCodes: ReadonlySet<ErrorCode> = new Set(['NOISE', 'PROTOCOL', 'CANCELLED']);

/** Whether the peer or the stop of the receiver ended the connection: any stranger can cause such errors. */
function isCausedByPeer(error: unknown): boolean {
  return isReceiverError(error) && peerCodes.has(error.code);
}

/**
 * Sends each event of a job to the session of its peer on the lane that brought it, under the peer's own id. Events
 * during the peer's absence are not repeated: it asks for its job again when it reconnects.
 */
function startJobFanOut(jobs: SessionJobs, sessions: Sessions, stripPaths: PathStripper, lanes: number) {
  const muted = new Set<string>();

  function state(job: JobRecord): void {
    const frame = stateFrame(job);
    if (frame && !muted.has(job.id)) sessions.get(job.dashboardId, job.lane)?.outbox.state(frame);
    if (isTerminal(job)) muted.delete(job.id);
  }

  const stop = jobs.subscribe((event: JobEvent) => {
    if (event.type === 'state') state(event.job);
    if (event.type === 'output' && !muted.has(event.job.id)) {
      const session = sessions.get(event.job.dashboardId, event.job.lane);
      session?.outbox.output(event.job.peerJobId, stripPaths(event.line, event.job));
    }
    if (event.type === 'queue') {
      const frame = queueStatusFrame(event.status, lanes);
      for (const session of sessions.list()) session.outbox.queueStatus(frame);
    }
  });
  /** Sends nothing more about a running job whose peer's id now means a newer one. */
  const mute = (jobId: string): void => void muted.add(jobId);
  return { mute, stop };
}
