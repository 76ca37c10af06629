/**
 * Calls listeners that cannot harm the emitter or each other (short because it is one primitive): a panel that throws
 * while it hears of an approval must not undo the approval, nor keep a peer from its own event.
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
