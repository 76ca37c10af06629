/**
 * Limits on connections that have not yet proved to be an approved peer's: anybody on the network can open a
 * socket and say nothing. An approved peer's session does not count, since there is only one for each peer.
 */

export interface GateLimits {
  /** Connections of strangers at once. */
  readonly maxStrangers: number;
  /** The same from one address. */
  readonly maxPerAddress: number;
  /** The limit for each of the two waits of the handshake. */
  readonly handshakeMs: number;
}

export const defaultGateLimits: GateLimits = Object.freeze({
  maxStrangers: 64,
  maxPerAddress: 16,
  handshakeMs: 10_000,
});

/** Gives the place up: the stranger has left, or is none any more. May be called more than once. */
export type LeaveGate = () => void;

export interface Gate {
  /**
   * Takes a place. When there is none, the stranger who has said nothing for the longest loses his, first among
   * those of the same address: silent sockets must not keep an approved peer out.
   */
  enter(address: string, evict: () => void): LeaveGate;
}

interface Place {
  readonly address: string;
  readonly evict: () => void;
}

export function createGate({ maxStrangers, maxPerAddress }: GateLimits): Gate {
  /** Oldest first. */
  const places = new Set<Place>();

  function makeRoom(address: string): void {
    const same = [...places].filter((place) => place.address === address);
    const oldest =
      same.length >= maxPerAddress ? same[0] : places.size >= maxStrangers ? [...places][0] : undefined;
    if (oldest === undefined) return;
    places.delete(oldest);
    oldest.evict();
  }

  return {
    enter(address, evict) {
      makeRoom(address);
      const place = { address, evict };
      places.add(place);
      return () => void places.delete(place);
    },
  };
}
