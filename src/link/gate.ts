/**
 * Limits on connections that have not yet proved to be an approved peer's: anybody on the network can open a
 * socket and say nothing. An approved peer's session does not count, since there is only one for each peer.
 */
import type { Clock } from '../peers/clock.js';
import { createPlaces, type LeavePlace } from './places.js';
import { createRate } from './rate.js';

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
export type LeaveGate = LeavePlace;

export interface Gate {
  /**
   * Takes a place. When there is none, a stranger who has said nothing for long loses his, first among those of the same
   * network: silent sockets must not keep an approved peer out. Null: too many have come from there of late.
   */
  enter(address: string, evict: () => void): LeaveGate | null;
}

export function createGate(limits: GateLimits, clock: Clock): Gate {
  const rate = createRate({ perSecond: limits.handshakesPerSecond, clock });
  const places = createPlaces({ most: limits.strangers, mostOfNetwork: limits.strangersPerAddress });
  return {
    enter: (address, evict) => (rate.take(address) ? places.enter(address, evict) : null),
  };
}
