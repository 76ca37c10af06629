/**
 * Limits on connections before their session, and on uploads. See {@link createFairPool} for who loses in a full pool.
 */
import { createFairPool, networkOf, type ReleasePlace } from '../async/fair-pool.js';
import type { Clock } from '../async/clock.js';
import type { ConnectionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';

/**
 * Limits on unauthenticated connections: anyone on the network can open a socket and stay silent. Sessions of approved
 * peers do not count, because each peer has only one.
 */
export type StrangerLimits = Pick<
  ConnectionLimits,
  'strangers' | 'strangersPerAddress' | 'handshakesPerSecond' | 'handshakeTimeoutMs'
>;

export function createStrangerPool(limits: StrangerLimits, clock: Clock) {
  const rate = createRateLimiter({ perSecond: limits.handshakesPerSecond, clock });
  const places = createFairPool({ most: limits.strangers, mostOfNetwork: limits.strangersPerAddress });
  return {
    /** As `enter` of a fair pool, or null when the network has begun too many handshakes. */
    enter: (address: string, evict: () => void): ReleasePlace | null =>
      rate.take(address) ? places.enter(address, evict) : null,
  };
}

/** The size of a burst: a household that reconnects after a power cut is not an attack. */
const burstSeconds = 4;
/** The most networks to remember; beyond it, those with a full bucket are forgotten. */
const mostNetworks = 4_096;

interface Bucket {
  tokens: number;
  at: number;
}

/**
 * A token bucket per network. A handshake costs the receiver two key agreements before it knows the caller, and a
 * stranger nothing, so the excess is dropped before that work.
 */
export function createRateLimiter({ perSecond, clock }: { perSecond: number; clock: Clock }) {
  const burst = perSecond * burstSeconds;
  const buckets = new Map<string, Bucket>();
  const filled = ({ tokens, at }: Bucket, now: number): number =>
    Math.min(burst, tokens + ((now - at) / 1_000) * perSecond);

  function forgetFull(now: number): void {
    for (const [network, bucket] of buckets) if (filled(bucket, now) >= burst) buckets.delete(network);
    // In a flood from this many networks, the one seen first loses the least.
    const [first] = buckets.keys();
    if (buckets.size >= mostNetworks && first !== undefined) buckets.delete(first);
  }

  return {
    /** Takes a token. False when there is none. */
    take(address: string): boolean {
      const now = clock.steady();
      const network = networkOf(address);
      const bucket = buckets.get(network) ?? { tokens: burst, at: now };
      const tokens = filled(bucket, now);
      if (!buckets.has(network) && buckets.size >= mostNetworks) forgetFull(now);
      buckets.set(network, { tokens: Math.max(0, tokens < 1 ? tokens : tokens - 1), at: now });
      return tokens >= 1;
    },
  };
}

export type Uploads = ReturnType<typeof createUploads>;

/**
 * Counts the uploads of each peer over all its connections. The data of a lost connection takes time to be removed, so
 * without the count a peer that reconnects again and again could have any number of half-written trees on disk.
 */
export function createUploads(maxUploadsPerPeer: number) {
  const counts = new Map<DashboardId, number>();
  return {
    maxUploadsPerPeer,
    /** Counts an upload and returns its release, to be called once; undefined when the peer has too many. */
    begin(peer: DashboardId): (() => void) | undefined {
      const count = counts.get(peer) ?? 0;
      if (count >= maxUploadsPerPeer) return undefined;
      counts.set(peer, count + 1);
      return () => {
        const left = (counts.get(peer) ?? 0) - 1;
        if (left === 0) counts.delete(peer);
        else counts.set(peer, left);
      };
    },
  };
}
