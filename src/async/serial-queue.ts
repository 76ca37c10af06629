/**
 * Runs pieces of work one after the other, in the order in which they were asked for. An error goes to whoever asked for
 * that piece, and the next one begins all the same.
 */
export interface SerialQueue {
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when nothing runs or waits any more. Never rejects. */
  idle(): Promise<void>;
}

/** A {@link SerialQueue} for each key; different keys do not wait for each other. */
export interface KeyedQueue {
  run<T>(key: string, work: () => Promise<T>): Promise<T>;
  idle(): Promise<void>;
}

export function createSerialQueue(): SerialQueue {
  const { run, idle } = createKeyedQueue();
  return { run: (work) => run('', work), idle };
}

export function createKeyedQueue(): KeyedQueue {
  /** Settles with the last piece of work of each key that is busy. */
  const tails = new Map<string, Promise<void>>();

  return {
    run(key, work) {
      const result = (tails.get(key) ?? Promise.resolve()).then(work);
      const leave = (): void => {
        if (tails.get(key) === tail) tails.delete(key);
      };
      const tail = result.then(leave, leave);
      tails.set(key, tail);
      return result;
    },
    async idle() {
      while (tails.size > 0) await Promise.all(tails.values());
    },
  };
}
