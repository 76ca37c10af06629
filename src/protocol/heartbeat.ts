/**
 * Detects a dead connection, and limits the wait for a close. A machine that lost its network closes nothing: a dead
 * session would block its peer, and the results of its jobs would be lost (Device Builder 1.26).
 */
import { onAbort } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import type { OffloaderChannel } from './channel.js';

const intervalMs = 30_000;
const deadAfterMs = 90_000;

/** Pings every 30 s and each time checks the last 90 s, so a dead connection is detected after 90 to 120 s. */
export function startHeartbeat(options: {
  readonly clock: Clock;
  /** Sends a ping; false when it could not be sent. */
  readonly ping: (nonce: number) => boolean;
  /** Called once, after the heartbeat has stopped, when the other side counts as dead. */
  readonly dead: () => void;
  /** Whether reading is paused, so that silence proves nothing. */
  readonly isPaused: () => boolean;
}) {
  const { clock, ping, dead, isPaused } = options;
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
    /** Call it for every frame that could be decrypted. */
    alive(): void {
      lastAlive = clock.steady();
    },
    stop: () => cancel(),
  };
}

/** The time that the other side has to close its end. */
export const closeGraceMs = 5_000;

/** Resolves when a closing connection has ended; destroys it after 5 s, because a stranger might never close its end. */
export async function waitForClose(
  { signal, destroy }: Pick<OffloaderChannel, 'signal' | 'destroy'>,
  clock: Clock,
): Promise<void> {
  if (signal.aborted) return;
  const cancelCut = clock.after(closeGraceMs, destroy);
  await new Promise<void>((resolve) => void onAbort(signal, resolve));
  cancelCut();
}
