/**
 * The sockets of the receiver's own port that are no peer link yet, whatever they have said so far: nothing, half a
 * request, or requests without end. Each has so many milliseconds from its arrival and no more, and a newcomer who finds
 * no room gets that of another (places.ts). So silent strangers neither keep a paired dashboard out nor stay.
 *
 * What has been upgraded is no concern of this: the link's gate counts strangers, and a session of a peer is never ended
 * for want of room.
 */
import { createPlaces, type LeavePlace } from '../link/places.js';
import type { Clock } from '../peers/clock.js';

export interface HalfOpenLimits {
  /** How many at once. */
  readonly sockets: number;
  /** From the arrival to the upgrade, in milliseconds; up to a second more. */
  readonly handshakeTimeoutMs: number;
}

/** One timer for all of them fires no more often than this. */
const leastWaitMs = 1_000;

export interface HalfOpen {
  /**
   * Takes a newcomer in; `end` is called once, when his time is over or his place is needed. He leaves when he has been
   * upgraded, or is gone.
   */
  enter(address: string, end: () => void): LeavePlace;
}

interface Waiting {
  readonly until: number;
  readonly end: () => void;
  readonly leave: LeavePlace;
}

export function createHalfOpen({ sockets, handshakeTimeoutMs }: HalfOpenLimits, clock: Clock): HalfOpen {
  const places = createPlaces({ most: sockets });
  /** As they came, so that the first is the next whose time is over. */
  const waiting = new Set<Waiting>();
  let isTimed = false;

  function lookLater(): void {
    const [first] = waiting;
    if (isTimed || first === undefined) return;
    isTimed = true;
    clock.after(Math.max(first.until - clock.now(), leastWaitMs), () => {
      isTimed = false;
      endLate();
      lookLater();
    });
  }

  function endLate(): void {
    const now = clock.now();
    for (const late of waiting) {
      if (late.until > now) return;
      late.leave();
      late.end();
    }
  }

  return {
    enter(address, end) {
      const leavePlace = places.enter(address, () => {
        waiting.delete(mine);
        end();
      });
      const mine: Waiting = {
        until: clock.now() + handshakeTimeoutMs,
        end,
        leave() {
          waiting.delete(mine);
          leavePlace();
        },
      };
      waiting.add(mine);
      lookLater();
      return mine.leave;
    },
  };
}
