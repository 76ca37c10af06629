/**
 * Keeps a build from starting on a machine that has no room for one more: a compiler that the kernel kills for want
 * of memory fails a job that would have passed a minute later, and often somebody else's with it.
 *
 * It stands behind any queue: a job takes its turn first, and then holds its slot until there is room, so that
 * nobody who comes later is let in before it. Once shut it opens again only a quarter above the mark, or every
 * object file that is written would turn it on and off. A build is always let in when no other one runs, for a small
 * machine may never have as much free; only on a nearly full disk it fails, because waiting makes no room there.
 */
import { onAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';
import { ReceiverError } from '../errors.js';
import type { JobQueue, QueueTicket } from './queue.js';
import { gigabytes, type Shortage } from './waiting.js';

export interface AdmissionOptions {
  /** A further build begins only with as much free, in bytes; 0 turns it off. */
  readonly minFreeMemoryBytes: number;
  /** As above, for the volume of the builds; with less, also the only build fails. */
  readonly minFreeDiskBytes: number;
  /** Bytes; null when it is not known, which counts as enough. */
  readonly freeMemory: () => number | null;
  /** The same. Never rejects. */
  readonly freeDisk: () => Promise<number | null>;
  /** Time between two looks while somebody waits, in milliseconds. Default: 2,000. */
  readonly recheckMs?: number;
  /**
   * For so long after its start a build counts as one that is yet to take its memory, in milliseconds. Default:
   * 20,000: several that begin at once would all see the same free memory.
   */
  readonly growthMs?: number;
  readonly clock: Clock;
}

interface AdmissionWaiter {
  admit(): void;
  fail(error: ReceiverError): void;
  tell(shortage: Shortage): void;
}

/** How far above its mark a resource has to be before builds begin again. */
const reopenFactor = 1.25;

/** The queue with admission behind it. Its `status` is that of the queue: who waits here holds a slot. */
export function withAdmission(queue: JobQueue, options: AdmissionOptions): JobQueue {
  const gate = createGate(options);
  return {
    status: () => queue.status(),
    async enter(id, ticket) {
      const slot = await queue.enter(id, ticket);
      if (ticket.target === 'clean') return slot;
      try {
        const leave = await gate.pass(ticket);
        return {
          release() {
            leave();
            slot.release();
          },
        };
      } catch (error) {
        slot.release();
        throw error;
      }
    },
  };
}

interface AdmissionGate {
  /** Resolves with how to leave. Rejects with the signal's reason and with `RESOURCE`. */
  pass(ticket: Pick<QueueTicket, 'signal' | 'onShort'>): Promise<() => void>;
}

function createGate(options: AdmissionOptions): AdmissionGate {
  const { minFreeMemoryBytes, minFreeDiskBytes, freeMemory, freeDisk, clock } = options;
  const { recheckMs = 2_000, growthMs = 20_000 } = options;
  const waiting = new Set<AdmissionWaiter>();
  /** When each build that runs was let in. */
  const inside = new Set<{ readonly since: number }>();
  const memory = createMark('memory');
  const disk = createMark('disk');
  let cancelTimer = (): void => {};
  let looking: Promise<void> | undefined;
  let isWanted = false;

  /** Lets in whoever may begin now. One look at a time; a wish that comes meanwhile is heard at its end. */
  function look(): void {
    cancelTimer();
    isWanted = true;
    looking ??= lookAll().finally(() => {
      looking = undefined;
      if (isWanted) look();
      else if (waiting.size > 0) cancelTimer = clock.after(recheckMs, look, true);
    });
  }

  async function lookAll(): Promise<void> {
    isWanted = false;
    while (waiting.size > 0) {
      const free = await freeDisk();
      const [first] = waiting;
      if (first === undefined) return;
      const isAlone = inside.size === 0;
      const shortage = isAlone ? null : shortageOf(free);
      if (shortage !== null) {
        for (const waiter of waiting) waiter.tell(shortage);
        return;
      }
      if (isAlone && free !== null && free < minFreeDiskBytes) first.fail(fullDisk(free, minFreeDiskBytes));
      else first.admit();
    }
  }

  function shortageOf(freeDiskBytes: number | null): Shortage | null {
    const growing = [...inside].filter(({ since }) => clock.steady() - since < growthMs).length;
    return (
      disk.check(freeDiskBytes, minFreeDiskBytes) ??
      memory.check(freeMemory(), minFreeMemoryBytes * (1 + growing))
    );
  }

  return {
    pass({ signal, onShort }) {
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const stopListening = onAbort(signal, () => {
          settle();
          reject(signal.reason);
        });
        const settle = (): void => {
          stopListening();
          waiting.delete(waiter);
          if (waiting.size === 0) cancelTimer();
        };
        const waiter: AdmissionWaiter = {
          admit() {
            settle();
            const build = { since: clock.steady() };
            inside.add(build);
            resolve(() => {
              if (inside.delete(build) && waiting.size > 0) look();
            });
          },
          fail(error) {
            settle();
            reject(error);
          },
          tell: (shortage) => onShort?.(shortage),
        };
        waiting.add(waiter);
        look();
      });
    },
  };
}

/** Shut below what is needed, and open again at a quarter more. */
function createMark(what: Shortage['for']): { check(free: number | null, needed: number): Shortage | null } {
  let isShut = false;
  return {
    check(freeBytes, needed) {
      const opensAt = needed * reopenFactor;
      isShut = freeBytes !== null && freeBytes < (isShut ? opensAt : needed);
      return isShut ? { for: what, freeBytes: freeBytes ?? 0, neededBytes: opensAt } : null;
    },
  };
}

function fullDisk(free: number, needed: number): ReceiverError {
  const message =
    `the disk of the build server is nearly full: ${gigabytes(free, Math.floor)} GB are free, ` +
    `and no build begins with less than ${gigabytes(needed, Math.ceil)} GB`;
  return new ReceiverError('RESOURCE', message, { free, needed });
}
