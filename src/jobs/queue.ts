/**
 * Who may run now: the contract, and the version inside one process, first come, first served.
 *
 * A job enters, waits for its turn, and holds a slot until it gives it back. What holds for every queue (the
 * shared suite checks it):
 *
 * - At most as many slots are out as the queue has; a job waits while none is free.
 * - Among those waiting, an earlier `enter` is served no later than a later one of the same peer.
 * - Aborting the signal of a waiting job takes it out, and `enter` rejects with the signal's reason. The others do
 *   not notice. Once `enter` has resolved, the signal means nothing here.
 * - `release` gives the slot back at once, and once: a second call does nothing.
 * - The holder releases only when nothing of its work runs any more; the queue believes it.
 *
 * Not promised: fairness between peers, and that a slot comes back by itself when its holder dies with the process.
 */
export interface Slot {
  release(): void;
}

export interface JobQueue {
  /** Resolves when the job has a slot. `id` is unique among those inside. Rejects with the signal's reason. */
  enter(id: string, options: { readonly signal: AbortSignal }): Promise<Slot>;
  /** Who holds a slot, and who waits in which order. */
  status(): { readonly running: readonly string[]; readonly waiting: readonly string[] };
}

/** A queue in this process. `slots` is at least 1; default 1. */
export function createMemoryQueue({ slots = 1 }: { readonly slots?: number } = {}): JobQueue {
  const running = new Set<string>();
  const waiting = new Map<string, () => void>();

  function grant(id: string): Slot {
    running.add(id);
    let isHeld = true;
    return {
      release() {
        if (!isHeld) return;
        isHeld = false;
        running.delete(id);
        const [next] = waiting.values();
        next?.();
      },
    };
  }

  return {
    enter(id, { signal }) {
      return new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        if (running.size < slots) return resolve(grant(id));
        const leave = (): void => {
          waiting.delete(id);
          reject(signal.reason);
        };
        signal.addEventListener('abort', leave, { once: true });
        waiting.set(id, () => {
          signal.removeEventListener('abort', leave);
          waiting.delete(id);
          resolve(grant(id));
        });
      });
    },
    status: () => ({ running: [...running], waiting: [...waiting.keys()] }),
  };
}
