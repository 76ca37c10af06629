/**
 * Runs async functions one after the other, in call order (short because it is one primitive). An error rejects only
 * that call, and the next one starts anyway.
 */
export type SerialQueue = ReturnType<typeof createSerialQueue>;

export function createSerialQueue() {
  const { run, idle } = createKeyedQueue();
  return { run: <T>(work: () => Promise<T>): Promise<T> => run('', work), idle };
}

/** A queue for each key; different keys do not wait for each other. */
export function createKeyedQueue() {
  /** For each busy key, settles with its last call. */
  const tails = new Map<string, Promise<void>>();

  return {
    run<T>(key: string, work: () => Promise<T>): Promise<T> {
      const result = (tails.get(key) ?? Promise.resolve()).then(work);
      const removeTail = (): void => {
        if (tails.get(key) === tail) tails.delete(key);
      };
      const tail = result.then(removeTail, removeTail);
      tails.set(key, tail);
      return result;
    },
    /** Resolves when nothing runs or waits. Never rejects. */
    async idle(): Promise<void> {
      while (tails.size > 0) await Promise.all(tails.values());
    },
  };
}
