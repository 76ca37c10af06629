/**
 * Requests to pair that wait for a person, and the connections that wait with them for the answer.
 *
 * They live in memory only and die with the pairing window. Rows and waiters are bounded, because anybody on the
 * network can make them while the window is open.
 */
import { onAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';
import { ReceiverError } from '../errors.js';
import type { ConnectionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';
import { foldId } from './identity.js';
import type { NewPeer } from './peer-row.js';

/** A request as the operator sees it. The pin is that of the key which asked. */
export interface PendingPeer extends NewPeer {
  readonly pin: string;
}

export type PairingLimits = Pick<ConnectionLimits, 'pairingRequests' | 'waitersPerRequest'>;

export interface PendingRows {
  list(): readonly PendingPeer[];
  get(id: DashboardId): PendingPeer | undefined;
  /** Whether another row has this id in another case. */
  hasTwin(id: DashboardId): boolean;
  /** Adds or replaces the row of that id. False when it is a new one and there are too many. */
  put(row: PendingPeer): boolean;
  /** Removes the row and wakes who waits for it. False when there was none. */
  remove(id: DashboardId): boolean;
  /**
   * Begins to watch a row. `removed` becomes true when it goes, false when the signal aborts or a newer watcher takes
   * this one's place. Call `stop` on every way out.
   */
  watch(id: DashboardId, signal: AbortSignal): { readonly removed: Promise<boolean>; stop(): void };
}

export function createPendingRows({ pairingRequests, waitersPerRequest }: PairingLimits): PendingRows {
  const rows = new Map<DashboardId, PendingPeer>();
  const waiters = new Map<DashboardId, Set<(removed: boolean) => void>>();

  return {
    list: () => [...rows.values()],
    get: (id) => rows.get(id),
    hasTwin: (id) => [...rows.keys()].some((other) => other !== id && foldId(other) === foldId(id)),
    put(row) {
      if (!rows.has(row.dashboardId) && rows.size >= pairingRequests) return false;
      rows.set(row.dashboardId, row);
      return true;
    },
    remove(id) {
      if (!rows.delete(id)) return false;
      for (const settle of [...(waiters.get(id) ?? [])]) settle(true);
      return true;
    },
    watch(id, signal) {
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

/**
 * The pairing window: strangers can ask to pair only while somebody is looking.
 *
 * Each operator's page holds its own share, so closing one page does not shut the door on another, and a page that
 * vanished stops counting after its time. One timer, always for the latest deadline: an old one that fires after an
 * explicit close would throw out requests of the next window.
 */

/** How long a share lasts unless it is extended (Device Builder 1.26). */
export const windowMs = 300_000;
const maxClients = 64;
const maxNameLength = 64;

export interface PairingWindow {
  isOpen(): boolean;
  /** Milliseconds until the window closes by itself; 0 when it is closed. */
  closesInMs(): number;
  /**
   * Opens the window for one client, or extends that client's share: from now on, `durationMs` (300 s unless said). Throws
   * `OPTIONS` for too many clients, or too long a name.
   */
  open(client: string, durationMs?: number): void;
  /** Gives up that client's share. The window closes with the last one. */
  close(client: string): void;
  /** Closes the window for all. */
  closeAll(): void;
}

/** `changed` is called after each opening and extension, and once when the window has closed. */
export function createPairingWindow(clock: Clock, changed: () => void): PairingWindow {
  const deadlines = new Map<string, number>();
  let cancelTimer = (): void => {};

  const latest = (): number => Math.max(...deadlines.values(), -Infinity);
  const closesInMs = (): number => Math.max(0, latest() - clock.steady());

  function closeAll(): void {
    cancelTimer();
    if (deadlines.size === 0) return;
    deadlines.clear();
    changed();
  }

  function reschedule(): void {
    cancelTimer();
    const delayMs = closesInMs();
    if (delayMs === 0) return closeAll();
    cancelTimer = clock.after(delayMs, closeAll);
  }

  return {
    isOpen: () => closesInMs() > 0,
    closesInMs,
    open(client, durationMs = windowMs) {
      for (const [each, deadline] of deadlines) if (deadline <= clock.steady()) deadlines.delete(each);
      if (client.length > maxNameLength || (!deadlines.has(client) && deadlines.size >= maxClients)) {
        const limits = `${maxClients} clients with names of ${maxNameLength} characters`;
        throw new ReceiverError('OPTIONS', `the pairing window has at most ${limits}`);
      }
      deadlines.set(client, clock.steady() + durationMs);
      reschedule();
      changed();
    },
    close(client) {
      if (deadlines.delete(client)) {
        if (deadlines.size === 0) {
          cancelTimer();
          changed();
        } else reschedule();
      }
    },
    closeAll,
  };
}
