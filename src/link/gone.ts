/**
 * The wait for the end of a connection that is being closed. The other side may never close its own end, and a
 * connection that nobody ends is one more that a stranger holds.
 */
import type { Clock } from '../peers/clock.js';

/** How long the other side may take to close its end before ours is cut. */
export const closeGraceMs = 5_000;

export interface Leaving {
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
  destroy(): void;
}

/** Resolves when the connection has ended, and cuts it after 5 s. Never rejects. */
export async function gone(leaving: Leaving, clock: Clock): Promise<void> {
  if (leaving.signal.aborted) return;
  const cancelCut = clock.after(closeGraceMs, () => leaving.destroy());
  await new Promise((resolve) => leaving.signal.addEventListener('abort', resolve, { once: true }));
  cancelCut();
}
