/**
 * Who may run now: the contract, and the version inside one process.
 *
 * A job enters, waits for its turn, and holds a slot until it gives it back. One peer that sends a hundred devices
 * once kept everybody else waiting for an hour; so peers take turns. What holds for every queue (the shared suite
 * checks it):
 *
 * - Slots: at most as many are out as the queue has, and nobody waits while one is free.
 * - Order: the jobs of one peer get their slots in the order in which they entered.
 * - Fairness: while a peer waits, every other peer gets at most one slot before that peer gets its next. How many
 *   jobs a peer has waiting does not matter. The host's own work is one more peer ({@link hostPeer}).
 * - Leaving: aborting the signal of a waiting job takes it out at once, and `enter` rejects with the signal's reason.
 *   The others keep their places. Once `enter` has resolved, the signal means nothing here.
 * - Giving back: `release` takes effect at once, and once; a second call does nothing. The holder calls it only when
 *   nothing of its work runs any more; the queue believes it.
 *
 * What a crash may cost: places and slots of the process that died, and nothing of any other process. Jobs are kept
 * in the store and not here. Whoever starts again enters the jobs that still wait, in the order of their
 * `createdAt`, so a peer's own order outlives the crash; whose turn it was need not. A queue that serves many
 * processes has to give a dead one's slots out again by itself, within a time that it documents.
 *
 * A slot is a share of a machine and no lock: what must not happen twice at once is guarded by the device's lease.
 * `status` is what this process knows at the moment; a queue on another machine may be ahead of it.
 */
import { onAbort } from '../async/abort.js';
import type { Shortage } from './waiting.js';

/** In place of a dashboard's id, none of which begins with a dot: the host's own work. */
export const hostPeer = '.host';

export interface QueueTicket {
  /** Whose turn it is: the id of a dashboard, or {@link hostPeer}. */
  readonly peer: string;
  /** What the slot is for. A clean needs no free memory and makes room on the disk. */
  readonly target: 'compile' | 'clean';
  readonly signal: AbortSignal;
  /** Called, perhaps again and again, while it has its turn and the machine is short of something. Must not throw. */
  readonly onShort?: ((shortage: Shortage) => void) | undefined;
}

export interface Slot {
  release(): void;
}

export interface QueueOrder {
  /** Who holds a slot. */
  readonly running: readonly string[];
  /** Who waits for one, in the order in which they get theirs if nobody comes or leaves. */
  readonly waiting: readonly string[];
}

export interface JobQueue {
  /**
   * Resolves when the job has a slot. `id` is unique among those inside. Rejects with the signal's reason, and with
   * `RESOURCE` when the machine cannot run it even alone.
   */
  enter(id: string, ticket: QueueTicket): Promise<Slot>;
  status(): QueueOrder;
}

/** A queue in this process. `slots` is at least 1. */
export function createMemoryQueue({ slots }: { readonly slots: number }): JobQueue {
  const running = new Set<string>();
  /** Of each peer who waits, its jobs in order, and how they begin. The peer whose turn is next comes first. */
  const lines = new Map<string, Map<string, () => void>>();

  function serve(): void {
    for (const [peer, line] of lines) {
      const [first] = line;
      if (running.size >= slots || first === undefined) return;
      const [id, begin] = first;
      take(peer, id);
      if (lines.delete(peer)) lines.set(peer, line);
      running.add(id);
      begin();
    }
  }

  function take(peer: string, id: string): void {
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
          take(peer, id);
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

/** One of each line, then again one of each that is left. */
function inTurns(lines: readonly ReadonlyMap<string, unknown>[]): string[] {
  const rest = lines.map((line) => [...line.keys()]);
  const longest = Math.max(0, ...rest.map((ids) => ids.length));
  return Array.from({ length: longest }, (_, round) =>
    rest.flatMap((ids) => ids.slice(round, round + 1)),
  ).flat();
}
