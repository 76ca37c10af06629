/**
 * When to connect back to which dashboard (Device Builder 1.26): after it has been silent for long enough to have
 * reconnected by itself, and less and less often while calls fail. A peer has one call at a time and none during a
 * session, and few calls run at once, so a table full of dead addresses costs few sockets. Time, randomness and
 * connections are injected.
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
  /** The interval between two checks for silent peers. */
  readonly sweepMs: number;
  /** How long a peer must be silent before a call: far above the 30 s after which a client reconnects by itself. */
  readonly silenceMs: number;
}

export const defaultConnectBackTiming: ConnectBackTiming = Object.freeze({
  sweepMs: 30_000,
  silenceMs: 300_000,
});

export const maxCalls = 4;

/** `firstMs` is the delay before the second attempt, plus or minus 20 %. It doubles with each further attempt. */
const usual = { firstMs: 300_000, mostMs: 3_600_000 };
/** For a dashboard that is already probing this receiver. */
const busy = { firstMs: 30_000, mostMs: 300_000 };
const jitter = 0.2;
/** After this many failures in a row the delay is at its maximum, and the operator is warned. */
const failuresToWarn = 5;

interface ConnectBackScheduleOptions {
  /** The approved peers. */
  readonly peers: () => readonly Peer[];
  readonly isConnected: (id: DashboardId) => boolean;
  /** Must not reject, and must end soon after the signal aborts. */
  readonly call: (peer: Peer, signal: AbortSignal) => Promise<CallOutcome>;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly timing: ConnectBackTiming;
  readonly log: Log;
}

/** The state of a peer without a session. */
interface Silence {
  since: number;
  /** The earliest time of the next call. */
  until: number;
  /** Failed calls in a row. */
  failures: number;
}

/** Starts at once. A peer without a session since then counts as silent since then. */
export function startConnectBackSchedule(options: ConnectBackScheduleOptions) {
  const { clock, random, timing, log } = options;
  const silences = new Map<DashboardId, Silence>();
  /** Until they end, even if they were cancelled. */
  const calls = new Map<
    DashboardId,
    { readonly controller: AbortController; readonly ended: Promise<void> }
  >();
  let cancelSweep = (): void => {};
  sweep();

  function sweep(): void {
    cancelSweep = clock.after(timing.sweepMs, sweep);
    const peers = options.peers();
    const known = new Set(peers.map(({ dashboardId }) => dashboardId));
    for (const id of [...silences.keys()]) if (!known.has(id)) forget(id);
    const due = peers.filter(isDue).toSorted((a, b) => dueAt(a) - dueAt(b));
    for (const peer of due.slice(0, maxCalls - calls.size)) startCall(peer);
  }

  function silenceOf({ dashboardId }: Peer): Silence {
    return silences.get(dashboardId) ?? restartSilence(dashboardId);
  }

  function restartSilence(id: DashboardId): Silence {
    const silence = { since: clock.steady(), until: 0, failures: 0 };
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

  function startCall(peer: Peer): void {
    const { dashboardId, address, connectBackPort: port } = peer;
    const controller = new AbortController();
    log.info({ dashboardId, address, port }, 'calling dashboard back');
    calls.set(dashboardId, { controller, ended: runCall(peer, controller.signal) });
  }

  async function runCall(peer: Peer, signal: AbortSignal): Promise<void> {
    const outcome = await options.call(peer, signal);
    calls.delete(peer.dashboardId);
    if (!signal.aborted) recordOutcome(peer, outcome);
  }

  function recordOutcome(peer: Peer, outcome: CallOutcome): void {
    const { dashboardId, address, connectBackPort: port } = peer;
    const facts = { dashboardId, address, port };
    switch (outcome.kind) {
      case 'accepted':
        restartSilence(dashboardId);
        return log.info(facts, 'dashboard called back');
      case 'refused':
        return recordRefusal(peer, outcome.reason);
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

  function recordRefusal(peer: Peer, reason: string): void {
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

  function backOff(peer: Peer, { firstMs, mostMs }: typeof usual): void {
    const silence = silenceOf(peer);
    silence.failures += 1;
    const first = firstMs * (1 - jitter + 2 * jitter * random());
    silence.until = clock.steady() + Math.min(first * 2 ** (silence.failures - 1), mostMs);
    if (silence.failures !== failuresToWarn) return;
    log.warn({ dashboardId: peer.dashboardId }, 'call back failed several times in a row');
  }

  /** Removes a revoked peer and ends its call. */
  function forget(id: DashboardId): void {
    calls.get(id)?.controller.abort();
    silences.delete(id);
  }

  return {
    /** Records that a peer's session was opened or closed. */
    recordSession(id: DashboardId, connected: boolean): void {
      if (connected) calls.get(id)?.controller.abort();
      restartSilence(id);
    },
    forget,
    /** Ends all calls; resolves when none is running. */
    async stop(): Promise<void> {
      cancelSweep();
      for (const { controller } of calls.values()) controller.abort();
      await Promise.all([...calls.values()].map(({ ended }) => ended));
    },
  };
}

/** Unspecified, multicast and reserved addresses, some of which reach this machine. */
const uncallable = new BlockList();
uncallable.addSubnet('0.0.0.0', 8);
uncallable.addSubnet('224.0.0.0', 4);
uncallable.addSubnet('240.0.0.0', 4);
uncallable.addAddress('::', 'ipv6');
uncallable.addSubnet('ff00::', 8, 'ipv6');

/**
 * Whether a peer can be called. Its address came over the wire and through a file, so only a literal one is dialled and no
 * name is resolved. An address with a zone (`fe80::1%eth0`) does not fit into a URL.
 */
export function isCallable({ address, connectBackPort }: Pick<Peer, 'address' | 'connectBackPort'>): boolean {
  if (connectBackPort === 0 || isIP(address) === 0 || address.includes('%')) return false;
  return !uncallable.check(address, isIPv6(address) ? 'ipv6' : 'ipv4');
}

/** The receiver's own port, and how it opens connections. */
export interface CallingPlace {
  readonly port: number;
  /** Opens a connection to a peer link at a literal address. Rejects when no one answers, and on abort. */
  readonly dial: (
    where: { readonly host: string; readonly port: number },
    signal: AbortSignal,
  ) => Promise<Transport>;
  readonly timing: ConnectBackTiming;
}

interface ConnectBackOptions extends CallingPlace {
  readonly identity: KeyPair;
  readonly table: PeerTable;
  readonly pairing: PairingService;
  readonly sessions: Pick<Sessions, 'isConnected' | 'subscribe'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Runs the schedule with the events of sessions and pairing. The returned function stops it, once no call is running. */
export function startConnectBack(options: ConnectBackOptions): () => Promise<void> {
  const { identity, port, dial, timing, table, pairing, sessions, clock, log } = options;
  const schedule = startConnectBackSchedule({
    peers: () => table.list(),
    isConnected: sessions.isConnected,
    call({ address: host, connectBackPort, pin: expectedPin }, signal) {
      const connect = (): Promise<Transport> => dial({ host, port: connectBackPort }, signal);
      return connectBack(connect, { identity, expectedPin, port, clock, signal });
    },
    ...{ clock, random: Math.random, timing, log },
  });
  const stops = [
    sessions.subscribe((event) => {
      if (event.type === 'session') schedule.recordSession(event.dashboardId, event.connected);
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
