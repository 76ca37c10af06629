/**
 * Waits until something has become true (short because it is one primitive). Whoever changes a part of it wakes those who
 * wait, and each of them says by itself what it waits for.
 */
export interface Condition {
  /** Resolves when `holds` is true, which is asked now and at each `wake`. Never rejects. */
  until(holds: () => boolean): Promise<void>;
  wake(): void;
}

export function createCondition(): Condition {
  const waiting = new Map<() => void, () => boolean>();
  return {
    async until(holds) {
      if (!holds()) await new Promise<void>((resolve) => waiting.set(resolve, holds));
    },
    wake() {
      for (const [resolve, holds] of waiting) {
        if (holds() && waiting.delete(resolve)) resolve();
      }
    },
  };
}
