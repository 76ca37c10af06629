/**
 * The contract of the job queue, and its implementation within one process.
 *
 * A job enters, waits, and holds a slot until it releases it. One peer that submitted a hundred devices once kept all
 * others waiting for an hour, so slots rotate among peers. Every queue guarantees (checked by the shared suite):
 *
 * - Slots: no more are held than the queue has, and no job waits while one is free.
 * - Order: the jobs of one peer get their slots in the order in which they entered.
 * - Fairness: while a peer waits, every other peer gets at most one slot before that peer gets its next, however many
 *   jobs it has waiting. The host's own work counts as one more peer ({@link hostPeer}).
 * - Cancelling: aborting the signal of a waiting job removes it at once, and `enter` rejects with the signal's reason.
 *   The others keep their places. After `enter` has resolved, the signal has no effect on the queue.
 * - Release: `release` takes effect at once; a second call does nothing. The holder calls it only when nothing of its
 *   work runs; the queue does not verify this.
 *
 * A crash costs the places and slots of the process that died, and nothing of any other process. The store keeps the
 * jobs. A restarted process enters the jobs that still wait, ordered by `createdAt`: the order within a peer survives
 * the crash, the rotation among peers need not. A queue that serves many processes must reassign the slots of a dead
 * one by itself, within a time that it documents.
 *
 * A slot is a share of a machine, not a lock: the device's lease guards against concurrent work in one directory.
 * `status` is what this process knows now; a queue on another machine can be ahead of it.
 */
import { onAbort } from '../async/calls.js';
import type { Shortage } from './waiting.js';

/** In place of a dashboard's id, none of which begins with a dot: the host's own work. */
export const hostPeer = '.host';

export interface QueueTicket {
  /** The id of a dashboard, or {@link hostPeer}. */
  readonly peer: string;
  /** A clean needs no free memory, and frees disk space. */
  readonly target: 'compile' | 'clean';
  readonly signal: AbortSignal;
  /** Called, possibly repeatedly, while the job has a slot but the machine lacks a resource. Must not throw. */
  readonly onShort?: ((shortage: Shortage) => void) | undefined;
}

export interface Slot {
  release(): void;
}

export interface QueueOrder {
  readonly running: readonly string[];
  /** In the order in which they get their slots if no job enters or leaves. */
  readonly waiting: readonly string[];
}

export interface JobQueue {
  /**
   * Resolves when the job has a slot. `id` is unique among the jobs in the queue. Rejects with the signal's reason, and
   * with `RESOURCE` when the machine cannot run the job even alone.
   */
  enter(id: string, ticket: QueueTicket): Promise<Slot>;
  status(): QueueOrder;
}

/** `slots` is at least 1. */
export function createMemoryQueue({ slots }: { readonly slots: number }): JobQueue {
  const running = new Set<string>();
  /** For each waiting peer, its jobs in order, and how to start them. The next peer to be served comes first. */
  const lines = new Map<string, Map<string, () => void>>();

  function serve(): void {
    for (const [peer, line] of lines) {
      const [first] = line;
      if (running.size >= slots || first === undefined) return;
      const [id, begin] = first;
      removeFromLine(peer, id);
      if (lines.delete(peer)) lines.set(peer, line);
      running.add(id);
      begin();
    }
  }

  function removeFromLine(peer: string, id: string): void {
    const line = lines.get(peer);
    line?.delete(id);
    if (line?.size === 0) lines.delete(peer);
  }

  function slotOf(id: string): Slot {
    let isHeld = true;
    return {
      release() {
        if (!isHeld) return;
        isHeld = false;
        running.delete(id);
        serve();
      },
    };
  }

  return {
    enter(id, { peer, signal }) {
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        const stopListening = onAbort(signal, () => {
          removeFromLine(peer, id);
          reject(signal.reason);
        });
        const line = lines.get(peer) ?? new Map<string, () => void>();
        lines.set(peer, line);
        line.set(id, () => {
          stopListening();
          resolve(slotOf(id));
        });
        serve();
      });
    },
    status: () => ({ running: [...running], waiting: inTurns([...lines.values()]) }),
  };
}

/** Interleaves the lines: the first of each, then the second of each, and so on. */
function inTurns(lines: readonly ReadonlyMap<string, unknown>[]): string[] {
  const rest = lines.map((line) => [...line.keys()]);
  const longest = Math.max(0, ...rest.map((ids) => ids.length));
  return Array.from({ length: longest }, (_, round) =>
    rest.flatMap((ids) => ids.slice(round, round + 1)),
  ).flat();
}
