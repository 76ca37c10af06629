/**
 * How many uploads of each peer are under way, over all its connections: a connection has one that arrives, and what
 * a lost one leaves takes its time to be removed. Without the count a peer that connects again and again would have
 * any number of half-written trees here at once.
 */
import type { DashboardId } from '../paths/index.js';

/** One connection alone has five: one that arrives, and four ends. */
export const defaultMaxUploadsPerPeer = 8;

export interface Uploads {
  readonly maxPerPeer: number;
  /** Counts one more and gives how to count it off, once; undefined when there are as many as may be. */
  begin(peer: DashboardId): (() => void) | undefined;
}

export function createUploads(maxPerPeer: number): Uploads {
  const counts = new Map<DashboardId, number>();
  return {
    maxPerPeer,
    begin(peer) {
      const count = counts.get(peer) ?? 0;
      if (count >= maxPerPeer) return undefined;
      counts.set(peer, count + 1);
      return () => {
        const left = (counts.get(peer) ?? 0) - 1;
        if (left === 0) counts.delete(peer);
        else counts.set(peer, left);
      };
    },
  };
}
