/**
 * Limits on connections before their session, and on uploads. A full pool accepts a new connection and evicts the oldest
 * one of the network with the most: a refusal would let silent strangers who came first keep an approved peer out. A peer
 * that is alone at its address keeps its place in any flood from fewer addresses than the pool has places.
 */
import { isIPv6 } from 'node:net';

import type { Clock } from '../async/clock.js';
import type { ConnectionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';

/** Frees the place. Can be called repeatedly, and after an eviction. */
export type ReleasePlace = () => void;

interface PooledConnection {
  readonly network: string;
  readonly evict: () => void;
}

export function createConnectionPool({
  most,
  mostOfNetwork = most,
}: {
  most: number;
  mostOfNetwork?: number;
}) {
  /** The connections of each network, oldest first; the networks in the order of arrival. */
  const networks = new Map<string, Set<PooledConnection>>();
  let taken = 0;

  function remove(connection: PooledConnection): void {
    const same = networks.get(connection.network);
    if (!same?.delete(connection)) return;
    taken -= 1;
    if (same.size === 0) networks.delete(connection.network);
  }

  /** The largest network, counting the new connection. In a tie, its own network comes first, then the oldest. */
  function largestWith(newcomer: string): Set<PooledConnection> | undefined {
    let largest = networks.get(newcomer);
    let size = largest === undefined ? 0 : largest.size + 1;
    for (const same of networks.values()) {
      if (same.size > size) [largest, size] = [same, same.size];
    }
    return largest;
  }

  function makeRoom(network: string): void {
    const same = networks.get(network);
    const hasShare = same !== undefined && same.size >= mostOfNetwork;
    const [oldest] = (hasShare ? same : taken >= most ? largestWith(network) : undefined) ?? [];
    if (oldest === undefined) return;
    remove(oldest);
    oldest.evict();
  }

  return {
    /** Takes a place. If the pool is full, another connection is removed first and its `evict` is called. */
    enter(address: string, evict: () => void): ReleasePlace {
      const network = networkOf(address);
      makeRoom(network);
      const connection = { network, evict };
      const same = networks.get(network) ?? new Set();
      networks.set(network, same.add(connection));
      taken += 1;
      return () => remove(connection);
    },
  };
}

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
  const places = createConnectionPool({ most: limits.strangers, mostOfNetwork: limits.strangersPerAddress });
  return {
    /** As `enter` of a connection pool, or null when the network has begun too many handshakes. */
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

/** An IPv4 address, also one mapped into IPv6, or the first 64 bits of an IPv6 one: its holder can use all the others. */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address;
  const [bare = ''] = address.replace(/^::ffff:(?=\d+\.)/i, '').split('%');
  if (!isIPv6(bare)) return bare;
  const [head = '', tail] = bare.split('::');
  const left = head === '' ? [] : head.split(':');
  if (tail === undefined) return left.slice(0, 4).join(':');
  const right = tail === '' ? [] : tail.split(':');
  // A trailing IPv4 part stands for two groups.
  const length = right.length + (tail.includes('.') ? 1 : 0);
  const groups = [...left, ...Array.from({ length: 8 - left.length - length }, () => '0'), ...right];
  return groups.slice(0, 4).join(':');
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
