/**
 * Limits on connections that have not yet proved to be an approved peer's: anybody on the network can open a
 * socket and say nothing. An approved peer's session does not count, since there is only one for each peer.
 */
import type { Clock } from '../peers/clock.js';
import { createRate, networkOf } from './rate.js';

export interface GateLimits {
  /** Connections of strangers at once. */
  readonly strangers: number;
  /** The same from one network: an IPv4 address, or the first 64 bits of an IPv6 one. */
  readonly strangersPerAddress: number;
  /** Handshakes that one network may begin in a second, over a longer time. */
  readonly handshakesPerSecond: number;
  /** The limit for each of the two waits of the handshake, in milliseconds. */
  readonly handshakeTimeoutMs: number;
}

export const defaultGateLimits: GateLimits = Object.freeze({
  strangers: 64,
  strangersPerAddress: 16,
  handshakesPerSecond: 20,
  handshakeTimeoutMs: 10_000,
});

/** Gives the place up: the stranger has left, or is none any more. May be called more than once. */
export type LeaveGate = () => void;

export interface Gate {
  /**
   * Takes a place. When there is none, the stranger who has said nothing for the longest loses his, first among
   * those of the same network: silent sockets must not keep an approved peer out. Null: too many have come from there
   * of late.
   */
  enter(address: string, evict: () => void): LeaveGate | null;
}

interface Place {
  readonly network: string;
  readonly evict: () => void;
}

export function createGate(limits: GateLimits, clock: Clock): Gate {
  const { strangers, strangersPerAddress, handshakesPerSecond: perSecond } = limits;
  const rate = createRate({ perSecond, clock });
  /** Oldest first. */
  const places = new Set<Place>();

  function makeRoom(network: string): void {
    const same = [...places].filter((place) => place.network === network);
    const oldest =
      same.length >= strangersPerAddress ? same[0] : places.size >= strangers ? [...places][0] : undefined;
    if (oldest === undefined) return;
    places.delete(oldest);
    oldest.evict();
  }

  return {
    enter(address, evict) {
      if (!rate.take(address)) return null;
      const network = networkOf(address);
      makeRoom(network);
      const place = { network, evict };
      places.add(place);
      return () => void places.delete(place);
    },
  };
}
