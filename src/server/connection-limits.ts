/**
 * So many places for connections that nobody has vouched for yet. A newcomer always gets one: to refuse him would let
 * whoever came first and says nothing keep an approved peer out.
 *
 * Who goes instead is the oldest of the network that has the most. A peer that is alone at its address then keeps its
 * place in any flood that comes from fewer addresses than there are places.
 */
import { isIPv6 } from 'node:net';

import type { Clock } from '../async/clock.js';
import type { ConnectionLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';

export interface PoolLimits {
  readonly most: number;
  /** Of one network: an IPv4 address, or the first 64 bits of an IPv6 one. Default: all of them. */
  readonly mostOfNetwork?: number;
}

/** Gives the place up. May be called more than once, and by one who has lost his place. */
export type ReleasePlace = () => void;

export interface ConnectionPool {
  /** Takes a place. When there is none, somebody loses his first, and his `evict` is called. */
  enter(address: string, evict: () => void): ReleasePlace;
}

interface PooledConnection {
  readonly network: string;
  readonly evict: () => void;
}

export function createConnectionPool({ most, mostOfNetwork = most }: PoolLimits): ConnectionPool {
  /** The places of each network that has any, the oldest first; the networks as they came. */
  const networks = new Map<string, Set<PooledConnection>>();
  let taken = 0;

  function remove(place: PooledConnection): void {
    const same = networks.get(place.network);
    if (!same?.delete(place)) return;
    taken -= 1;
    if (same.size === 0) networks.delete(place.network);
  }

  /** With the newcomer counted. Of several that have as many it is his own, else the one that came first. */
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
    enter(address, evict) {
      const network = networkOf(address);
      makeRoom(network);
      const place = { network, evict };
      const same = networks.get(network) ?? new Set();
      networks.set(network, same.add(place));
      taken += 1;
      return () => remove(place);
    },
  };
}

/**
 * Anybody on the network can open a socket and say nothing. An approved peer's session does not count, since there is
 * only one for each peer.
 */
export type StrangerLimits = Pick<
  ConnectionLimits,
  'strangers' | 'strangersPerAddress' | 'handshakesPerSecond' | 'handshakeTimeoutMs'
>;

/** Gives the place up: the stranger has left, or is none any more. May be called more than once. */
export type LeavePool = ReleasePlace;

export interface StrangerPool {
  /**
   * Takes a place. When there is none, a stranger who has said nothing for long loses his, first among those of the same
   * network: silent sockets must not keep an approved peer out. Null: too many have come from there of late.
   */
  enter(address: string, evict: () => void): LeavePool | null;
}

export function createStrangerPool(limits: StrangerLimits, clock: Clock): StrangerPool {
  const rate = createRateLimiter({ perSecond: limits.handshakesPerSecond, clock });
  const places = createConnectionPool({ most: limits.strangers, mostOfNetwork: limits.strangersPerAddress });
  return {
    enter: (address, evict) => (rate.take(address) ? places.enter(address, evict) : null),
  };
}

/**
 * How many handshakes one network may begin: each costs us two key agreements before we know who asks, and a stranger
 * nothing. What is over is dropped before any of that work.
 */
export interface RateLimiter {
  /** Whether one more may begin now. */
  take(address: string): boolean;
}

/** So many seconds' worth may begin at once: a house that comes back from a power cut is no attack. */
const burstSeconds = 4;
/** Networks that are remembered; beyond it those go that could begin a full burst again. */
const mostNetworks = 4_096;

interface Bucket {
  tokens: number;
  at: number;
}

export function createRateLimiter({ perSecond, clock }: { perSecond: number; clock: Clock }): RateLimiter {
  const burst = perSecond * burstSeconds;
  const buckets = new Map<string, Bucket>();
  const filled = ({ tokens, at }: Bucket, now: number): number =>
    Math.min(burst, tokens + ((now - at) / 1_000) * perSecond);

  function forgetFull(now: number): void {
    for (const [network, bucket] of buckets) if (filled(bucket, now) >= burst) buckets.delete(network);
    // A flood from as many networks: the one that was seen first has the least to lose.
    const [first] = buckets.keys();
    if (buckets.size >= mostNetworks && first !== undefined) buckets.delete(first);
  }

  return {
    take(address) {
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

/** The address; of an IPv6 one its first 64 bits, since whoever has one has them all. An IPv4 one in IPv6 is an IPv4 one. */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address;
  const [bare = ''] = address.replace(/^::ffff:(?=\d+\.)/i, '').split('%');
  if (!isIPv6(bare)) return bare;
  const [head = '', tail] = bare.split('::');
  const left = head === '' ? [] : head.split(':');
  if (tail === undefined) return left.slice(0, 4).join(':');
  const right = tail === '' ? [] : tail.split(':');
  // An IPv4 part at the end is two groups in one.
  const length = right.length + (tail.includes('.') ? 1 : 0);
  const groups = [...left, ...Array.from({ length: 8 - left.length - length }, () => '0'), ...right];
  return groups.slice(0, 4).join(':');
}

/**
 * Counts the uploads of each peer over all its connections. What a lost connection leaves takes time to be removed, so
 * without the count a peer that connects again and again would have any number of half-written trees here at once.
 */
export interface Uploads {
  readonly maxUploadsPerPeer: number;
  /** Counts one more and gives how to count it off, once; undefined when there are as many as may be. */
  begin(peer: DashboardId): (() => void) | undefined;
}

export function createUploads(maxUploadsPerPeer: number): Uploads {
  const counts = new Map<DashboardId, number>();
  return {
    maxUploadsPerPeer,
    begin(peer) {
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
