/**
 * Listeners that cannot harm the one who tells them: a panel that throws while it hears of an approval must not
 * undo the approval.
 */
import type { Log } from '../log.js';

export interface Emitter<E> {
  /** Adds a listener; the returned function removes it. */
  subscribe(listener: (event: E) => void): () => void;
  /** Tells all, in the order of subscription. Never throws. */
  emit(event: E): void;
}

export function createEmitter<E>(log: Log): Emitter<E> {
  const entries = new Set<{ readonly listener: (event: E) => void }>();
  return {
    subscribe(listener) {
      const entry = { listener };
      entries.add(entry);
      return () => void entries.delete(entry);
    },
    emit(event) {
      for (const { listener } of [...entries]) {
        try {
          listener(event);
        } catch (error) {
          log.error({ err: error }, 'event listener threw');
        }
      }
    },
  };
}
