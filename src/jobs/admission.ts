/**
 * Delays a build while the machine lacks memory or disk space for one more: a compiler killed by the kernel for
 * lack of memory fails a job that would have passed a minute later, and often another job with it.
 *
 * It wraps any queue: a job first gets a slot, then holds it until there is room, so that no later job starts before
 * it. Once closed, the gate reopens only a quarter above the threshold; otherwise every object file written would
 * toggle it. A build always starts when no other one runs, because a small machine may never have that much free
 * memory. Only on a nearly full disk does it fail, because waiting frees no disk space.
 */
import { onAbort } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import { ReceiverError } from '../errors.js';
import type { ResolvedOptions } from '../options/core.js';
import type { JobQueue, QueueTicket } from './queue.js';
import { gigabytes, type Shortage } from './waiting.js';

export interface AdmissionOptions extends Pick<ResolvedOptions, 'minFreeMemoryBytes' | 'minFreeDiskBytes'> {
  /** Bytes; null when unknown, which counts as enough. */
  readonly freeMemory: () => number | null;
  /** Never rejects. */
  readonly freeDisk: () => Promise<number | null>;
  /** Time between two checks while a job waits, in milliseconds. Default: 2,000. */
  readonly recheckMs?: number;
  /**
   * How long after its start a build counts as not yet using its memory, in milliseconds. Default: 20,000. Builds
   * that start together would otherwise all see the same free memory.
   */
  readonly growthMs?: number;
  readonly clock: Clock;
}

interface AdmissionWaiter {
  admit(): void;
  fail(error: ReceiverError): void;
  notifyShortage(shortage: Shortage): void;
}

const reopenFactor = 1.25;

/** Adds admission to a queue. `status` is that of the queue: a job that waits here holds a slot. */
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

function createGate(options: AdmissionOptions) {
  const { minFreeMemoryBytes, minFreeDiskBytes, freeMemory, freeDisk, clock } = options;
  const { recheckMs = 2_000, growthMs = 20_000 } = options;
  const waiting = new Set<AdmissionWaiter>();
  const inside = new Set<{ readonly since: number }>();
  const memoryShortage = createThreshold('memory');
  const diskShortage = createThreshold('disk');
  let cancelTimer = (): void => {};
  let checking: Promise<void> | undefined;
  let isRequested = false;

  /** Admits the jobs that can start now. One check at a time; a request that arrives during one repeats it. */
  function check(): void {
    cancelTimer();
    isRequested = true;
    checking ??= checkWaiters().finally(() => {
      checking = undefined;
      if (isRequested) check();
      else if (waiting.size > 0) cancelTimer = clock.after(recheckMs, check, true);
    });
  }

  async function checkWaiters(): Promise<void> {
    isRequested = false;
    while (waiting.size > 0) {
      const free = await freeDisk();
      const [first] = waiting;
      if (first === undefined) return;
      const isAlone = inside.size === 0;
      const shortage = isAlone ? null : shortageOf(free);
      if (shortage !== null) {
        for (const waiter of waiting) waiter.notifyShortage(shortage);
        return;
      }
      if (isAlone && free !== null && free < minFreeDiskBytes) first.fail(fullDisk(free, minFreeDiskBytes));
      else first.admit();
    }
  }

  function shortageOf(freeDiskBytes: number | null): Shortage | null {
    const growing = [...inside].filter(({ since }) => clock.steady() - since < growthMs).length;
    return (
      diskShortage(freeDiskBytes, minFreeDiskBytes) ??
      memoryShortage(freeMemory(), minFreeMemoryBytes * (1 + growing))
    );
  }

  return {
    /** Resolves with the function that leaves. Rejects with the signal's reason and with `RESOURCE`. */
    pass({ signal, onShort }: Pick<QueueTicket, 'signal' | 'onShort'>): Promise<() => void> {
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const stopListening = onAbort(signal, () => {
          stopWaiting();
          reject(signal.reason);
        });
        const stopWaiting = (): void => {
          stopListening();
          waiting.delete(waiter);
          if (waiting.size === 0) cancelTimer();
        };
        const waiter: AdmissionWaiter = {
          admit() {
            stopWaiting();
            const build = { since: clock.steady() };
            inside.add(build);
            resolve(() => {
              if (inside.delete(build) && waiting.size > 0) check();
            });
          },
          fail(error) {
            stopWaiting();
            reject(error);
          },
          notifyShortage: (shortage) => onShort?.(shortage),
        };
        waiting.add(waiter);
        check();
      });
    },
  };
}

function createThreshold(what: Shortage['for']) {
  let isShut = false;
  return (freeBytes: number | null, needed: number): Shortage | null => {
    const opensAt = needed * reopenFactor;
    isShut = freeBytes !== null && freeBytes < (isShut ? opensAt : needed);
    return isShut ? { for: what, freeBytes: freeBytes ?? 0, neededBytes: opensAt } : null;
  };
}

function fullDisk(free: number, needed: number): ReceiverError {
  const message =
    `the disk of the build server is nearly full: ${gigabytes(free, Math.floor)} GB free, ` +
    `a build needs at least ${gigabytes(needed, Math.ceil)} GB`;
  return new ReceiverError('RESOURCE', message, { free, needed });
}
