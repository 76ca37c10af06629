/**
 * The pairing window, the requests that are pending in it, and the connections that wait for their decision. Requests are
 * held in memory only and expire with the window. Their number is limited, because anyone on the network can create them
 * while the window is open.
 */
import { onAbort } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import { createFairPool, type ReleasePlace } from '../async/fair-pool.js';
import { ReceiverError } from '../errors.js';
import type { ConnectionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';
import { foldId } from './identity.js';
import type { NewPeer } from './peer-row.js';

export interface PendingPeer extends NewPeer {
  readonly pin: string;
}

export type PairingLimits = Pick<ConnectionLimits, 'pairingRequests' | 'waitersPerRequest'>;

/** As many networks fill the table; one alone has a fraction of it, which an operator can still read. */
const leastNetworks = 4;

export function createPendingRows({ pairingRequests, waitersPerRequest }: PairingLimits) {
  const rows = new Map<DashboardId, PendingPeer>();
  const places = createFairPool({
    most: pairingRequests,
    mostOfNetwork: Math.ceil(pairingRequests / leastNetworks),
  });
  const releases = new Map<DashboardId, ReleasePlace>();
  const waiters = new Map<DashboardId, Set<(removed: boolean) => void>>();

  return {
    list: (): readonly PendingPeer[] => [...rows.values()],
    get: (id: DashboardId): PendingPeer | undefined => rows.get(id),
    /** Whether another row's id differs only in letter case. */
    hasTwin: (id: DashboardId): boolean =>
      [...rows.keys()].some((other) => other !== id && foldId(other) === foldId(id)),
    /** Adds or replaces a row. For a new one, `evict` is called when a newcomer needs its place. */
    put(row: PendingPeer, evict: () => void): void {
      const { dashboardId, address } = row;
      if (!rows.has(dashboardId)) releases.set(dashboardId, places.enter(address, evict));
      rows.set(dashboardId, row);
    },
    /** Removes the row and wakes its watchers. False when there is none. */
    remove(id: DashboardId): boolean {
      if (!rows.delete(id)) return false;
      releases.get(id)?.();
      releases.delete(id);
      for (const settle of [...(waiters.get(id) ?? [])]) settle(true);
      return true;
    },
    /**
     * Watches a row. `removed` resolves to true when the row is removed, to false when the signal aborts or a newer watcher
     * replaces this one. Always call `stop` at the end.
     */
    watch(id: DashboardId, signal: AbortSignal): { readonly removed: Promise<boolean>; stop(): void } {
      const all = waiters.get(id) ?? new Set();
      const { promise, resolve } = withResolvers<boolean>();
      let stopListening = (): void => {};
      const settle = (removed: boolean): void => {
        resolve(removed);
        stopListening();
        all.delete(settle);
        if (all.size === 0 && waiters.get(id) === all) waiters.delete(id);
      };
      const gone = (): void => settle(false);
      waiters.set(id, all.add(settle));
      stopListening = onAbort(signal, gone);
      const [oldest] = all;
      if (all.size > waitersPerRequest) oldest?.(false);
      return { removed: promise, stop: gone };
    },
  };
}

function withResolvers<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => {};
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}

/** The default duration of a share (Device Builder 1.26). */
export const windowMs = 300_000;
const maxClients = 64;
const maxNameLength = 64;

/**
 * Strangers can request to pair only while an operator is present. Each operator's page holds its own share of the window,
 * so closing one page does not close the window for another, and the share of a vanished page expires.
 */
export function createPairingWindow(
  clock: Clock,
  /** Called after each opening and extension, and once when the window has closed. */
  changed: () => void,
) {
  const deadlines = new Map<string, number>();
  let cancelTimer = (): void => {};

  const latest = (): number => Math.max(...deadlines.values(), -Infinity);
  /** Milliseconds until the window closes by itself; 0 when it is closed. */
  const closesInMs = (): number => Math.max(0, Math.ceil(latest() - clock.steady()));

  function closeAll(): void {
    cancelTimer();
    if (deadlines.size === 0) return;
    deadlines.clear();
    changed();
  }

  /** One timer for the latest deadline: an old timer that fires later would drop requests of the next window. */
  function reschedule(): void {
    cancelTimer();
    const delayMs = closesInMs();
    if (delayMs === 0) return closeAll();
    cancelTimer = clock.after(delayMs, closeAll);
  }

  return {
    isOpen: (): boolean => closesInMs() > 0,
    /** Whether a client other than this one holds a share. */
    isOpenBesides: (client: string): boolean =>
      [...deadlines].some(([each, deadline]) => each !== client && deadline > clock.steady()),
    closesInMs,
    /** Sets a client's share to `durationMs` from now. Throws `OPTIONS` for too many clients, or too long a name. */
    open(client: string, durationMs = windowMs): void {
      for (const [each, deadline] of deadlines) if (deadline <= clock.steady()) deadlines.delete(each);
      if (client.length > maxNameLength || (!deadlines.has(client) && deadlines.size >= maxClients)) {
        const limits = `at most ${maxClients} clients with names of up to ${maxNameLength} characters`;
        throw new ReceiverError('OPTIONS', `the pairing window allows ${limits}`);
      }
      deadlines.set(client, clock.steady() + durationMs);
      reschedule();
      changed();
    },
    /** Ends a client's share. The window closes with the last one. */
    close(client: string): void {
      if (!deadlines.delete(client)) return;
      if (deadlines.size > 0) return reschedule();
      cancelTimer();
      changed();
    },
    closeAll,
  };
}
