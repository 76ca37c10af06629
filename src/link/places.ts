/**
 * So many places for connections that nobody has vouched for yet. A newcomer always gets one: to refuse him would let
 * whoever came first and says nothing keep an approved peer out.
 *
 * Who goes instead is the oldest of the network that has the most. A peer that is alone at its address then keeps its
 * place in any flood that comes from fewer addresses than there are places.
 */
import { networkOf } from './rate.js';

export interface PlacesLimits {
  readonly most: number;
  /** Of one network: an IPv4 address, or the first 64 bits of an IPv6 one. Default: all of them. */
  readonly mostOfNetwork?: number;
}

/** Gives the place up. May be called more than once, and by one who has lost his place. */
export type LeavePlace = () => void;

export interface Places {
  /** Takes a place. When there is none, somebody loses his first, and his `evict` is called. */
  enter(address: string, evict: () => void): LeavePlace;
}

interface Place {
  readonly network: string;
  readonly evict: () => void;
}

export function createPlaces({ most, mostOfNetwork = most }: PlacesLimits): Places {
  /** The places of each network that has any, the oldest first; the networks as they came. */
  const networks = new Map<string, Set<Place>>();
  let taken = 0;

  function remove(place: Place): void {
    const same = networks.get(place.network);
    if (!same?.delete(place)) return;
    taken -= 1;
    if (same.size === 0) networks.delete(place.network);
  }

  /** With the newcomer counted. Of several that have as many it is his own, else the one that came first. */
  function largestWith(newcomer: string): Set<Place> | undefined {
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
