/** Waiting until something has become true, for code that knows when it may have: whoever changes a part of it wakes all. */
export interface Condition {
  /** Resolves when `holds` is true, which is asked now and whenever somebody wakes. Never rejects. */
  until(holds: () => boolean): Promise<void>;
  wake(): void;
}

export function createCondition(): Condition {
  let waiting: (() => void)[] = [];
  return {
    async until(holds) {
      while (!holds()) await new Promise<void>((resolve) => waiting.push(resolve));
    },
    wake() {
      const woken = waiting;
      waiting = [];
      for (const go of woken) go();
    },
  };
}
