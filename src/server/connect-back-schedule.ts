/**
 * When which dashboard is called back (Device Builder 1.26): one that has been silent for so long that it has had every
 * chance to come by itself, and ever more seldom while that leads to nothing.
 *
 * A peer has at most one call at a time and none while its session is open; few run at once, so that a table full of
 * dead addresses costs no more sockets than that. It knows neither sockets nor the wire, and takes time and chance from
 * outside.
 */
import { BlockList, isIP, isIPv6 } from 'node:net';

import type { Clock } from '../async/clock.js';
import { quote } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { PairingService } from '../peers/pairing.js';
import type { Peer } from '../peers/peer-row.js';
import type { PeerTable } from '../peers/peers.js';
import type { KeyPair } from '../protocol/noise.js';
import type { Transport } from '../protocol/transport.js';
import { type CallOutcome, connectBack } from './connect-back.js';
import type { Sessions } from './sessions.js';

export interface ConnectBackTiming {
  /** How often it is looked who is silent. */
  readonly sweepMs: number;
  /** For how long a peer must have been silent; far above the 30 s after which a client tries again by itself. */
  readonly silenceMs: number;
}

export const defaultConnectBackTiming: ConnectBackTiming = Object.freeze({
  sweepMs: 30_000,
  silenceMs: 300_000,
});

export const maxCalls = 4;

interface Backoff {
  /** Before the second attempt, 20 % more or less, and twice as long before each further one. */
  readonly firstMs: number;
  readonly mostMs: number;
}

const usual: Backoff = { firstMs: 300_000, mostMs: 3_600_000 };
/** The dashboard looks for us at this moment. */
const busy: Backoff = { firstMs: 30_000, mostMs: 300_000 };
const jitter = 0.2;
/** As many failures in a row have the delay at its most, and are worth a word to the operator. */
const strikesToWarn = 5;

export interface ConnectBackScheduleOptions {
  /** The approved peers. */
  readonly peers: () => readonly Peer[];
  readonly isConnected: (id: DashboardId) => boolean;
  /** Must not reject, and end soon after the signal's abort. */
  readonly call: (peer: Peer, signal: AbortSignal) => Promise<CallOutcome>;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly timing: ConnectBackTiming;
  readonly log: Log;
}

export interface ConnectBackSchedule {
  /** A peer's session has begun, or has ended. */
  note(id: DashboardId, connected: boolean): void;
  /** A peer is none any more. */
  forget(id: DashboardId): void;
  /** Ends all calls; resolves when none runs any more. */
  stop(): Promise<void>;
}

/** What is known of a peer that has no session. */
interface Silence {
  since: number;
  /** Not called again before. */
  until: number;
  /** Calls in a row that have failed. */
  strikes: number;
}

interface Call {
  readonly controller: AbortController;
  readonly ended: Promise<void>;
}

/** Begins at once. A peer that was not seen since the start has been silent since the start. */
export function startConnectBackSchedule(options: ConnectBackScheduleOptions): ConnectBackSchedule {
  const { clock, random, timing, log } = options;
  const silences = new Map<DashboardId, Silence>();
  /** Until their end, also when they were cancelled. */
  const calls = new Map<DashboardId, Call>();
  let cancelSweep = (): void => {};
  sweep();

  function sweep(): void {
    cancelSweep = clock.after(timing.sweepMs, sweep);
    const peers = options.peers();
    const known = new Set(peers.map(({ dashboardId }) => dashboardId));
    for (const id of [...silences.keys()]) if (!known.has(id)) forget(id);
    const due = peers.filter(isDue).toSorted((a, b) => dueAt(a) - dueAt(b));
    for (const peer of due.slice(0, maxCalls - calls.size)) begin(peer);
  }

  function silenceOf({ dashboardId }: Peer): Silence {
    return silences.get(dashboardId) ?? begun(dashboardId);
  }

  /** The silence begins anew, and what went wrong before is forgotten. */
  function begun(id: DashboardId): Silence {
    const silence = { since: clock.steady(), until: 0, strikes: 0 };
    silences.set(id, silence);
    return silence;
  }

  function dueAt(peer: Peer): number {
    const { since, until } = silenceOf(peer);
    return Math.max(since + timing.silenceMs, until);
  }

  function isDue(peer: Peer): boolean {
    const isTime = dueAt(peer) <= clock.steady();
    const { dashboardId: id } = peer;
    return isTime && isCallable(peer) && !options.isConnected(id) && !calls.has(id);
  }

  function begin(peer: Peer): void {
    const { dashboardId, address, connectBackPort: port } = peer;
    const controller = new AbortController();
    log.info({ dashboardId, address, port }, 'calling dashboard back');
    calls.set(dashboardId, { controller, ended: lead(peer, controller.signal) });
  }

  async function lead(peer: Peer, signal: AbortSignal): Promise<void> {
    const outcome = await options.call(peer, signal);
    calls.delete(peer.dashboardId);
    if (!signal.aborted) learn(peer, outcome);
  }

  function learn(peer: Peer, outcome: CallOutcome): void {
    const { dashboardId, address, connectBackPort: port } = peer;
    const facts = { dashboardId, address, port };
    switch (outcome.kind) {
      case 'accepted':
        begun(dashboardId);
        return log.info(facts, 'dashboard called back');
      case 'refused':
        return refused(peer, outcome.reason);
      case 'wrong_key':
        log.warn(facts, "call back failed: a different key answered at the dashboard's address");
        return backOff(peer, usual);
      case 'failed':
        log.debug({ ...facts, err: outcome.cause }, 'call back failed');
        return backOff(peer, usual);
      case 'cancelled':
        return;
    }
  }

  function refused(peer: Peer, reason: string): void {
    const facts = { dashboardId: peer.dashboardId, reason: quote(reason) };
    switch (reason) {
      case 'rebind_in_progress':
        backOff(peer, busy);
        return log.debug(facts, 'call back skipped: the dashboard is already probing');
      case 'already_connected':
        backOff(peer, usual);
        return log.debug(facts, 'call back skipped: the dashboard is connected');
      case 'probe_failed':
        backOff(peer, usual);
        return log.warn(facts, 'call back failed: the dashboard cannot reach this receiver');
      default:
        silenceOf(peer).until = clock.steady() + usual.mostMs;
        return log.warn(facts, 'call back refused by the dashboard');
    }
  }

  function backOff(peer: Peer, { firstMs, mostMs }: Backoff): void {
    const silence = silenceOf(peer);
    silence.strikes += 1;
    const first = firstMs * (1 - jitter + 2 * jitter * random());
    silence.until = clock.steady() + Math.min(first * 2 ** (silence.strikes - 1), mostMs);
    if (silence.strikes !== strikesToWarn) return;
    log.warn({ dashboardId: peer.dashboardId }, 'call back failed several times in a row');
  }

  function forget(id: DashboardId): void {
    calls.get(id)?.controller.abort();
    silences.delete(id);
  }

  return {
    note(id, connected) {
      if (connected) calls.get(id)?.controller.abort();
      begun(id);
    },
    forget,
    async stop() {
      cancelSweep();
      for (const { controller } of calls.values()) controller.abort();
      await Promise.all([...calls.values()].map(({ ended }) => ended));
    },
  };
}

/**
 * Where a peer can be called back. Address and port stand in a file and have come over the wire, so a name is never
 * looked up, and an address that means nobody, everybody or this machine by another name is not dialled.
 */
const nobody = new BlockList();
nobody.addSubnet('0.0.0.0', 8);
nobody.addSubnet('224.0.0.0', 4);
nobody.addSubnet('240.0.0.0', 4);
nobody.addAddress('::', 'ipv6');
nobody.addSubnet('ff00::', 8, 'ipv6');

/** Whether the peer has said a port, and was seen at a literal address. One with a zone (`fe80::1%eth0`) is in no URL. */
export function isCallable({ address, connectBackPort }: Pick<Peer, 'address' | 'connectBackPort'>): boolean {
  if (connectBackPort === 0 || isIP(address) === 0 || address.includes('%')) return false;
  return !nobody.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}

/**
 * Calls dashboards back for as long as a port of ours is open: what the link and the pairing say goes to the schedule, and
 * a call that is due goes over a connection that the mount opens.
 */

/** Opens a connection to a peer link at a literal address. Rejects when nobody answers, and on abort. */
export type Dial = (
  where: { readonly host: string; readonly port: number },
  signal: AbortSignal,
) => Promise<Transport>;

/** Where this receiver is to be found, and how it reaches others. */
export interface CallingPlace {
  /** The port that is bound. */
  readonly port: number;
  readonly dial: Dial;
  readonly timing: ConnectBackTiming;
}

export interface ConnectBackOptions extends CallingPlace {
  readonly identity: KeyPair;
  readonly table: PeerTable;
  readonly pairing: PairingService;
  readonly sessions: Pick<Sessions, 'get' | 'subscribe'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** The returned function ends it, and resolves when no call runs any more. */
export function startConnectBack(options: ConnectBackOptions): () => Promise<void> {
  const { identity, port, dial, timing, table, pairing, sessions, clock, log } = options;
  const schedule = startConnectBackSchedule({
    peers: () => table.list(),
    isConnected: (id) => sessions.get(id) !== undefined,
    call({ address: host, connectBackPort, pin: expectedPin }, signal) {
      const connect = (): Promise<Transport> => dial({ host, port: connectBackPort }, signal);
      return connectBack(connect, { identity, expectedPin, port, clock, signal });
    },
    ...{ clock, random: Math.random, timing, log },
  });
  const stops = [
    sessions.subscribe((event) => {
      if (event.type === 'session') schedule.note(event.dashboardId, event.connected);
    }),
    pairing.subscribe((event) => {
      if (event.type === 'revoked') schedule.forget(event.dashboardId);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    return schedule.stop();
  };
}
