/**
 * Tells others that something has changed. An emitter calls listeners that cannot harm it or each other: a panel that throws
 * while it hears of an approval must not undo the approval. A condition wakes its waiters once what they wait for is true.
 */
import type { Log } from '../log.js';

export interface Emitter<E> {
  /** Adds a listener; the returned function removes it, at once. A function that is added twice is called twice. */
  subscribe(listener: (event: E) => void): () => void;
  /** Calls those who have subscribed by now, in the order of subscription. Never throws. */
  emit(event: E): void;
}

/** `name` says in the log whose listener threw. */
export function createEmitter<E>(name: string, log: Log): Emitter<E> {
  const entries = new Set<{ readonly listener: (event: E) => void }>();
  return {
    subscribe(listener) {
      const entry = { listener };
      entries.add(entry);
      return () => void entries.delete(entry);
    },
    emit(event) {
      for (const entry of [...entries]) {
        if (!entries.has(entry)) continue;
        try {
          entry.listener(event);
        } catch (error) {
          log.error({ err: error, events: name }, 'event listener threw');
        }
      }
    },
  };
}

export interface Condition {
  /** Resolves when `holds` returns true; calls it now and at each `wake`. Never rejects. */
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
