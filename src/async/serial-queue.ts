/**
 * Runs async functions one after the other, in call order. An error rejects only that call, and the next one starts
 * anyway.
 */
export interface SerialQueue {
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when nothing runs or waits. Never rejects. */
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
  /** For each busy key, settles with its last call. */
  const tails = new Map<string, Promise<void>>();

  return {
    run(key, work) {
      const result = (tails.get(key) ?? Promise.resolve()).then(work);
      const removeTail = (): void => {
        if (tails.get(key) === tail) tails.delete(key);
      };
      const tail = result.then(removeTail, removeTail);
      tails.set(key, tail);
      return result;
    },
    async idle() {
      while (tails.size > 0) await Promise.all(tails.values());
    },
  };
}
