/**
 * One list of what must end, in the reverse order of its beginning (short because it is one primitive). A start that
 * fails half-way and an orderly stop walk the same list, so neither can forget what the other remembers, and an error in
 * one end hides no other.
 */
import { runOnce } from './calls.js';

export type Disposer = ReturnType<typeof createDisposer>;

type End = () => Promise<void> | void;

export function createDisposer() {
  const ends: End[] = [];

  async function disposeAll(): Promise<void> {
    const errors: unknown[] = [];
    for (let end = ends.pop(); end !== undefined; end = ends.pop()) {
      try {
        await end();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length === 1) throw errors[0];
    if (errors.length > 1) throw new AggregateError(errors, `${errors.length} parts failed to end`);
  }

  return {
    /** Adds an end. What began later ends first. */
    add: (end: End): void => void ends.push(end),
    /**
     * Ends everything, one after the other, whatever fails. Rejects with the one error, or with an `AggregateError` of
     * several. Idempotent: a second call waits for the first.
     */
    dispose: runOnce(disposeAll),
  };
}
