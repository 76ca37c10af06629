/**
 * Pairing: which dashboards are approved, pending or refused (Device Builder 1.26). Trust depends on the key from the
 * handshake, never on the id, label or address that came with it. A key is never replaced, in an approved row or a pending
 * one, and an approval names the pin that the operator saw: otherwise a stranger could replace the row between looking and
 * clicking.
 */
import type { Clock } from '../async/clock.js';
import { createEmitter } from '../async/signals.js';
import { ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { pinOf } from '../protocol/fingerprint.js';
import { createOneTimeKey, oneTimeKeyMs } from './one-time-key.js';
import { cleanLabel, type NewPeer, type Peer, type PeerChanges } from './peer-row.js';
import type { PeerTable } from './peers.js';
import { createPendingRows, type PairingLimits, type PendingPeer, createPairingWindow } from './pending.js';

/** A peer that has proved its key, and its claims about itself. */
export interface PairingCaller {
  readonly dashboardId: DashboardId;
  readonly publicKey: Uint8Array;
  readonly label: string;
  readonly labelAuto: boolean;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  readonly address: string;
  readonly connectBackPort: number;
  readonly pairingKey?: string;
}

/** In the words of the wire. */
export interface PairingAnswer {
  readonly response: 'ok' | 'approved' | 'pending' | 'rejected' | 'no_pairing_window';
  readonly reason?: 'no_approved_peer' | 'pin_mismatch' | 'pending_not_approved' | 'bad_dashboard_id';
}

export type PairingEvent =
  | { readonly type: 'requested'; readonly request: PendingPeer }
  | { readonly type: 'approved'; readonly peer: Peer }
  /** A pending request was rejected, or expired with the window. */
  | { readonly type: 'withdrawn'; readonly dashboardId: DashboardId }
  /** The approval ended; so must the peer's session and its jobs. */
  | { readonly type: 'revoked'; readonly dashboardId: DashboardId }
  | { readonly type: 'window'; readonly isOpen: boolean; readonly closesInMs: number };

export type PairingService = ReturnType<typeof createPairingService>;

export interface PairingServiceOptions {
  readonly peers: PeerTable;
  readonly clock: Clock;
  readonly connectionLimits: PairingLimits;
  /** Runs before a caller with this id is answered. A rejection prevents the answer, and the caller tries again. */
  readonly assertReady?: ((id: DashboardId) => Promise<void>) | undefined;
  /** Runs before this key is approved under this id. A rejection prevents the approval. */
  readonly beforeApproval?: ((id: DashboardId, pin: string) => Promise<void>) | undefined;
  readonly log: Log;
}

const bootstrap = 'one-time-key';
type OneTimeKey = ReturnType<typeof createOneTimeKey>;
/** The default author of a decision in the log. */
const theHost = 'the host';

export function createPairingService(options: PairingServiceOptions) {
  const { peers, clock, connectionLimits, log } = options;
  const { assertReady = async () => {}, beforeApproval = async () => {} } = options;
  const pending = createPendingRows(connectionLimits);
  const approving = new Set<DashboardId>();
  /** Requests whose approval could not be saved. They outlive the window, so that the approval can be repeated. */
  const undecided = new Set<DashboardId>();
  const events = createEmitter<PairingEvent>('pairing', log);
  let oneTimeKey: OneTimeKey | undefined;
  let wasOpen = false;
  const window = createPairingWindow(clock, () => {
    if (!window.isOpen()) {
      oneTimeKey?.disarm();
      oneTimeKey = undefined;
      for (const { dashboardId } of pending.list()) {
        if (!undecided.has(dashboardId) && withdraw(dashboardId))
          log.info({ dashboardId }, 'pairing request expired');
      }
    }
    if (window.isOpen() !== wasOpen) {
      wasOpen = window.isOpen();
      if (wasOpen) log.info({ closesInMs: window.closesInMs() }, 'pairing window opened');
      else log.info({}, 'pairing window closed');
    }
    events.emit({ type: 'window', isOpen: window.isOpen(), closesInMs: window.closesInMs() });
  });

  /** A request whose approval is being written can no longer be withdrawn. */
  function withdraw(id: DashboardId): boolean {
    if (approving.has(id) || !pending.remove(id)) return false;
    undecided.delete(id);
    events.emit({ type: 'withdrawn', dashboardId: id });
    return true;
  }

  async function pairRequest(caller: PairingCaller): Promise<PairingAnswer> {
    const id = caller.dashboardId;
    const pin = pinOf(caller.publicKey);
    const peer = peers.get(id);
    if (peer) {
      if (peer.pin !== pin) return { response: 'rejected', reason: 'pin_mismatch' };
      const label = cleanLabel(caller.label);
      peers.refresh(id, { ...presence(caller), ...(label && { label, labelAuto: caller.labelAuto }) });
      return { response: 'approved' };
    }
    if (!window.isOpen()) return { response: 'no_pairing_window' };
    // While only the key keeps the window open, requests without it are refused, even after it was used.
    const isAsked = window.isOpenBesides(bootstrap) && !(caller.pairingKey && oneTimeKey?.isArmed());
    if (oneTimeKey && !isAsked) return pairByKey(oneTimeKey, caller);
    if (peers.hasTwin(id) || pending.hasTwin(id)) return { response: 'rejected', reason: 'bad_dashboard_id' };
    const waiting = pending.get(id);
    if (waiting && waiting.pin !== pin) return { response: 'rejected', reason: 'pin_mismatch' };
    if (approving.has(id)) return { response: 'pending' };
    const request = { ...newPeer(caller, clock), pin };
    const isNew = waiting === undefined;
    pending.put(request, () => {
      if (withdraw(id)) log.warn({ dashboardId: id, address: request.address }, 'pairing request displaced');
    });
    const { label, address } = request;
    if (isNew) log.info({ dashboardId: id, label, pin, address }, 'pairing requested');
    events.emit({ type: 'requested', request });
    return { response: 'pending' };
  }

  async function pairByKey(key: OneTimeKey, caller: PairingCaller): Promise<PairingAnswer> {
    // The key is spent before the write is awaited, so there is exactly one pairing.
    if (!key.spend(caller.pairingKey ?? '')) return { response: 'no_pairing_window' };
    try {
      await admit(newPeer(caller, clock), 'the one-time key');
    } catch (error) {
      key.restore();
      throw error;
    }
    window.close(bootstrap);
    return { response: 'approved' };
  }

  /** A pending row takes precedence over an approved one. */
  function lookUp(caller: PairingCaller): PairingAnswer {
    const pin = pinOf(caller.publicKey);
    const waiting = pending.get(caller.dashboardId);
    const known = waiting ?? peers.get(caller.dashboardId);
    if (!known) return { response: 'rejected', reason: 'no_approved_peer' };
    if (known.pin !== pin) return { response: 'rejected', reason: 'pin_mismatch' };
    return waiting ? { response: 'pending', reason: 'pending_not_approved' } : { response: 'ok' };
  }

  /** Waits until the request is decided. Undefined when the signal aborts, or when too many wait for the same row. */
  async function pairStatus(caller: PairingCaller, signal: AbortSignal): Promise<PairingAnswer | undefined> {
    for (;;) {
      const watch = pending.watch(caller.dashboardId, signal);
      const answer = lookUp(caller);
      if (answer.response !== 'pending') {
        watch.stop();
        return answer.response === 'ok' ? { response: 'approved' } : answer;
      }
      if (!(await watch.removed)) return undefined;
    }
  }

  /**
   * Approves the request with this pin; resolves when the peer is on disk. Throws `PAIRING`, and `STORAGE` when that fails:
   * the request then waits for a repeated call.
   */
  async function approve(id: DashboardId, pin: string, by = theHost): Promise<Peer> {
    const request = pending.get(id);
    if (!request || approving.has(id)) {
      const isApproved = approving.has(id) || peers.get(id) !== undefined;
      const message = isApproved ? 'this dashboard is already approved' : 'no such pairing request';
      throw new ReceiverError('PAIRING', message);
    }
    if (request.pin !== pin) {
      throw new ReceiverError('PAIRING', 'the pin differs from the fingerprint of the pairing request');
    }
    approving.add(id);
    try {
      return await admit(request, by);
    } catch (error) {
      undecided.add(id);
      throw error;
    } finally {
      approving.delete(id);
    }
  }

  async function admit(newcomer: NewPeer, by: string): Promise<Peer> {
    await beforeApproval(newcomer.dashboardId, pinOf(newcomer.publicKey));
    const peer = await peers.add(newcomer);
    pending.remove(peer.dashboardId);
    undecided.delete(peer.dashboardId);
    const { dashboardId, label, pin, address } = peer;
    log.info({ dashboardId, label, pin, address, by }, 'dashboard approved');
    events.emit({ type: 'approved', peer });
    return peer;
  }

  return {
    window,
    /** Reads the decisions of another receiver on this directory. Await it before answering a caller. */
    async reread(id: DashboardId): Promise<void> {
      await peers.reread();
      await assertReady(id);
    },
    pairRequest,
    /** Whether the caller can open a session now. */
    peerLink: lookUp,
    pairStatus,
    /** Updates the peer's row when its session opens. Undefined when the approval was withdrawn after the answer. */
    seen(caller: PairingCaller): Peer | undefined {
      if (lookUp(caller).response !== 'ok') return undefined;
      peers.refresh(caller.dashboardId, presence(caller));
      return peers.get(caller.dashboardId);
    },
    pending: (): readonly PendingPeer[] => pending.list(),
    approve,
    /** Drops a pending request. False when there is none. */
    reject(id: DashboardId, by = theHost): boolean {
      const isRejected = withdraw(id);
      if (isRejected) log.info({ dashboardId: id, by }, 'pairing request rejected');
      return isRejected;
    },
    /**
     * Ends an approval, at once in memory; resolves when it is on disk. False when there is no such peer. Throws
     * `STORAGE`.
     */
    async revoke(id: DashboardId, by = theHost): Promise<boolean> {
      const peer = peers.get(id);
      // An earlier revocation can still wait for the disk.
      if (!peer) return peers.remove(id);
      const removal = peers.remove(id);
      log.info({ dashboardId: id, label: peer.label, pin: peer.pin, by }, 'dashboard revoked');
      events.emit({ type: 'revoked', dashboardId: id });
      return removal;
    },
    /** Opens the window for one pairing by a printed key. Throws `STATE` when a dashboard is already paired. */
    armOneTimeKey(show: (key: string) => void): void {
      if (peers.list().length > 0) throw new ReceiverError('STATE', 'a dashboard is already paired');
      window.open(bootstrap, oneTimeKeyMs);
      oneTimeKey = createOneTimeKey(clock, show);
    },
    subscribe: (listener: (event: PairingEvent) => void) => events.subscribe(listener),
    /** Closes the window and answers all waiting connections. */
    close: () => window.closeAll(),
  };
}

/** The changes from each connection; empty names and addresses keep the old ones. */
function presence(caller: PairingCaller): PeerChanges {
  const friendlyName = cleanLabel(caller.friendlyName);
  return {
    haAddon: caller.haAddon,
    ...(friendlyName && { friendlyName }),
    ...(caller.address && { address: caller.address }),
    ...(caller.connectBackPort > 0 && { connectBackPort: caller.connectBackPort }),
  };
}

function newPeer(caller: PairingCaller, { wall }: Clock): NewPeer {
  return {
    dashboardId: caller.dashboardId,
    publicKey: caller.publicKey,
    label: cleanLabel(caller.label),
    labelAuto: caller.labelAuto,
    pairedAt: wall() / 1000,
    address: caller.address,
    connectBackPort: caller.connectBackPort,
    friendlyName: cleanLabel(caller.friendlyName),
    haAddon: caller.haAddon,
  };
}
