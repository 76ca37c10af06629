/**
 * A bounded number of places that strangers take. A full pool accepts the newcomer and evicts the oldest guest of the
 * network with the most guests: otherwise silent strangers who came first would keep everybody else out. A guest who is
 * alone at its address keeps its place in any flood from fewer addresses than the pool has places.
 */
import { isIPv6 } from 'node:net';

/** Frees the place. Can be called repeatedly, and after an eviction. */
export type ReleasePlace = () => void;

interface Guest {
  readonly network: string;
  readonly evict: () => void;
}

export function createFairPool({ most, mostOfNetwork = most }: { most: number; mostOfNetwork?: number }) {
  /** The guests of each network, oldest first; the networks in the order of arrival. */
  const networks = new Map<string, Set<Guest>>();
  let taken = 0;

  function remove(guest: Guest): void {
    const same = networks.get(guest.network);
    if (!same?.delete(guest)) return;
    taken -= 1;
    if (same.size === 0) networks.delete(guest.network);
  }

  /** The largest network, counting the newcomer. In a tie, its own network comes first, then the oldest. */
  function largestWith(newcomer: string): Set<Guest> | undefined {
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
    /** Takes a place. If the pool is full, another guest is removed first and its `evict` is called. */
    enter(address: string, evict: () => void): ReleasePlace {
      const network = networkOf(address);
      makeRoom(network);
      const guest = { network, evict };
      const same = networks.get(network) ?? new Set();
      networks.set(network, same.add(guest));
      taken += 1;
      return () => remove(guest);
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
