/**
 * The pairing window: strangers can ask to pair only while somebody is looking.
 *
 * Each operator's page holds its own share, so closing one page does not shut the door on another, and a page that
 * vanished stops counting after its time. One timer, always for the latest deadline: an old one that fires after an
 * explicit close would throw out requests of the next window.
 */
import { ReceiverError } from '../errors.js';
import type { Clock } from './clock.js';

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
  const closesInMs = (): number => Math.max(0, latest() - clock.now());

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
      for (const [each, deadline] of deadlines) if (deadline <= clock.now()) deadlines.delete(each);
      if (client.length > maxNameLength || (!deadlines.has(client) && deadlines.size >= maxClients)) {
        const limits = `${maxClients} clients with names of ${maxNameLength} characters`;
        throw new ReceiverError('OPTIONS', `the pairing window has at most ${limits}`);
      }
      deadlines.set(client, clock.now() + durationMs);
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
