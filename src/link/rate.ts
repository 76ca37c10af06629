/**
 * How many handshakes one network may begin: each costs us two key agreements before we know who asks, and a stranger
 * nothing. What is over is dropped before any of that work.
 */
import { isIPv6 } from 'node:net';

import type { Clock } from '../peers/clock.js';

export interface Rate {
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

export function createRate({ perSecond, clock }: { perSecond: number; clock: Clock }): Rate {
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
      const now = clock.now();
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
