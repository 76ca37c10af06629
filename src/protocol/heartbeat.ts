/**
 * Both sides ask each other for a sign of life, because a machine that lost its network closes nothing: a dead
 * session would hold the peer's place, and its jobs' results would go nowhere (Device Builder 1.26).
 */
import { onAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';

const intervalMs = 30_000;
const deadAfterMs = 90_000;

export interface HeartbeatOptions {
  readonly clock: Clock;
  /** Sends a ping; false when it could not be sent. */
  readonly ping: (nonce: number) => boolean;
  /** Called once, when the other side is taken for dead; the heartbeat has stopped by then. */
  readonly dead: () => void;
  /** Whether we do not read at present, so that silence proves nothing. */
  readonly isPaused: () => boolean;
}

export interface Heartbeat {
  /** Any frame that could be decrypted is a sign of life. */
  alive(): void;
  stop(): void;
}

/** Pings every 30 s and looks back 90 s each time, so a death shows after 90 to 120 s. */
export function startHeartbeat({ clock, ping, dead, isPaused }: HeartbeatOptions): Heartbeat {
  let lastAlive = clock.steady();
  let nonce = 0;
  let cancel = clock.after(intervalMs, tick);

  function tick(): void {
    if (isPaused()) lastAlive = clock.steady();
    nonce += 1;
    if (clock.steady() - lastAlive > deadAfterMs || !ping(nonce)) return dead();
    cancel = clock.after(intervalMs, tick);
  }

  return {
    alive() {
      lastAlive = clock.steady();
    },
    stop: () => cancel(),
  };
}

/**
 * The wait for the end of a connection that is being closed. The other side may never close its own end, and a
 * connection that nobody ends is one more that a stranger holds.
 */

/** How long the other side may take to close its end before ours is cut. */
export const closeGraceMs = 5_000;

export interface Leaving {
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
  destroy(): void;
}

/** Resolves when the connection has ended, and cuts it after 5 s. Never rejects. */
export async function waitForClose(leaving: Leaving, clock: Clock): Promise<void> {
  if (leaving.signal.aborted) return;
  const cancelCut = clock.after(closeGraceMs, () => leaving.destroy());
  await new Promise<void>((resolve) => void onAbort(leaving.signal, resolve));
  cancelCut();
}
