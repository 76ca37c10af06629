/**
 * The receiver's side of the peer link: takes connections, answers them, and leads the sessions.
 *
 * It knows transports and no sockets, so that a host may bring the connections from wherever it has them.
 */
import { setMaxListeners } from 'node:events';

import { isReceiverError, type ErrorCode } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { systemClock, type Clock } from '../peers/clock.js';
import type { Identity } from '../peers/identity.js';
import type { Caller, PairingDesk } from '../peers/pairing.js';
import { answerOf, decide, type About } from './answer.js';
import type { ReceiverChannel } from './channel.js';
import { startFanOut } from './fan-out.js';
import { createGate, defaultGateLimits, type GateLimits, type LeaveGate } from './gate.js';
import { closeGraceMs, gone } from './gone.js';
import type { HidePlaces } from './hide-places.js';
import { respond } from './handshake.js';
import { queueStatusFrame } from './job-frames.js';
import type { IsPlaceSafe, LinkJobs, NoRoomFor, OpenIntake, ResetBuilds } from './ports.js';
import { openSession } from './session.js';
import { createSessions, type SessionEvent } from './sessions.js';
import type { Transport } from './transport.js';
import { createUploads, defaultMaxUploadsPerPeer } from './uploads.js';

export interface LinkOptions {
  readonly identity: Identity;
  readonly desk: PairingDesk;
  readonly jobs: LinkJobs;
  readonly openIntake: OpenIntake;
  /** Of a bundle as it arrives. Default: what the wire allows, 128 MiB. */
  readonly maxBundleBytes?: number;
  /** Of one peer, over all its connections; at least 2. Default: 8. */
  readonly maxUploadsPerPeer?: number;
  readonly isPlaceSafe: IsPlaceSafe;
  /** Default: there always is room. */
  readonly noRoomFor?: NoRoomFor | undefined;
  /** Default: nobody may, and nobody is told that he may. */
  readonly resetBuilds?: ResetBuilds | undefined;
  readonly about: About;
  /** Applied to each line of output. Default: none. */
  readonly hidePlaces?: HidePlaces;
  /** The version of the installed ESPHome. Asked for each connection, so it must answer within seconds. */
  readonly esphomeVersion: () => Promise<string>;
  /** Whether other versions are installed on demand. Asked as often; must not reject. Default: never. */
  readonly canProvision?: () => Promise<boolean>;
  readonly log: Log;
  /** Default: the machine's. */
  readonly clock?: Clock;
  readonly limits?: GateLimits;
}

export interface Link {
  /** Takes a connection over, for good. Never throws. */
  accept(transport: Transport): void;
  isConnected(id: DashboardId): boolean;
  /** Ends the session of a peer that is none any more, at once. */
  cutOff(id: DashboardId): void;
  subscribe(listener: (event: SessionEvent) => void): () => void;
  /** Closes the desk, tells all peers that the receiver ends, and waits until they are gone, at most 5 s. */
  close(): Promise<void>;
}

export function createLink(options: LinkOptions): Link {
  const { desk, jobs, log, clock = systemClock, limits = defaultGateLimits } = options;
  const gate = createGate(limits, clock);
  const sessions = createSessions(clock, log);
  const fanOut = startFanOut(jobs, sessions, options.hidePlaces ?? ((line) => line));
  const uploads = createUploads(options.maxUploadsPerPeer ?? defaultMaxUploadsPerPeer);
  const stopping = new AbortController();
  // Every handshake listens to it, and there may be more than ten.
  setMaxListeners(0, stopping.signal);
  /** Every accepted connection until it is gone. */
  const connections = new Map<Transport, Promise<void>>();
  const unsubscribe = desk.subscribe((event) => {
    if (event.type === 'revoked') cutOff(event.dashboardId);
  });

  function cutOff(id: DashboardId): void {
    sessions.get(id)?.end('cut');
  }

  function accept(transport: Transport): void {
    if (stopping.signal.aborted) return transport.destroy();
    const leave = gate.enter(transport.remoteAddress, () => transport.destroy());
    if (leave === null) return transport.destroy();
    const served = serve(transport, leave)
      .catch((error: unknown) => {
        const facts = { error, address: transport.remoteAddress };
        if (isTheirs(error)) log.debug(facts, 'a connection failed');
        else log.error(facts, 'a connection could not be served');
        transport.destroy();
      })
      .finally(() => {
        leave();
        connections.delete(transport);
      });
    connections.set(transport, served);
  }

  async function serve(transport: Transport, leave: LeaveGate): Promise<void> {
    const { signal } = stopping;
    const responded = await respond(transport, options.identity, {
      timeoutMs: limits.handshakeTimeoutMs,
      signal,
    });
    const { channel, intent } = responded;
    const [version, provisions = false] = await Promise.all([esphomeVersion(), options.canProvision?.()]);
    const decision = await decide(responded, desk);
    if (decision) {
      const { response, reason } = decision;
      log.info({ intent, response, reason, address: channel.remoteAddress }, 'a connection was answered');
      const resets = options.resetBuilds !== undefined;
      channel.answer(answerOf(decision, responded, options.about, { version, provisions, resets }));
      if (decision.granted && (await lead(channel, decision.granted, leave))) return;
    }
    channel.close();
    await gone(channel, clock);
  }

  async function esphomeVersion(): Promise<string> {
    try {
      return await options.esphomeVersion();
    } catch (error) {
      log.warn({ error }, 'the version of ESPHome is not known');
      return '';
    }
  }

  /** Leads the session to its end. False when the approval was withdrawn after the answer. */
  async function lead(channel: ReceiverChannel, caller: Caller, leave: LeaveGate): Promise<boolean> {
    const { dashboardId } = caller;
    const isFree = await sessions.isFree(dashboardId, channel.remoteAddress);
    const peer = desk.seen(caller);
    if (!peer || stopping.signal.aborted) return false;
    if (!isFree) {
      channel.terminate('identity_in_use');
      await gone(channel, clock);
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
    desk.close();
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
    cutOff,
    subscribe: (listener) => sessions.subscribe(listener),
    close,
  };
}

const theirCodes: ReadonlySet<ErrorCode> = new Set(['NOISE', 'PROTOCOL', 'CANCELLED']);

/** Whether a connection failed by what the other side did, or because the receiver ends: anybody can cause that. */
function isTheirs(error: unknown): boolean {
  return isReceiverError(error) && theirCodes.has(error.code);
}
