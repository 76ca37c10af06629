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
  /** Takes a place, or undefined when there is none. */
  enter(address: string): LeaveGate | undefined;
}

export function createGate({ maxStrangers, maxPerAddress }: GateLimits): Gate {
  const perAddress = new Map<string, number>();
  let strangers = 0;

  return {
    enter(address) {
      const same = perAddress.get(address) ?? 0;
      if (strangers >= maxStrangers || same >= maxPerAddress) return undefined;
      perAddress.set(address, same + 1);
      strangers += 1;
      let isInside = true;
      return () => {
        if (!isInside) return;
        isInside = false;
        strangers -= 1;
        const left = (perAddress.get(address) ?? 1) - 1;
        if (left === 0) perAddress.delete(address);
        else perAddress.set(address, left);
      };
    },
  };
}
