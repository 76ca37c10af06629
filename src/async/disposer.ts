/**
 * A list of cleanups that run in reverse order (short because it is one primitive). A start that fails half-way and an
 * orderly stop run the same list, so neither can forget a part. An error in one cleanup hides no other error.
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
    /** Adds a cleanup. The one added last runs first. */
    add: (end: End): void => void ends.push(end),
    /**
     * Ends everything, one after the other, whatever fails. Rejects with the one error, or with an `AggregateError` of
     * several. Idempotent: a second call waits for the first.
     */
    dispose: runOnce(disposeAll),
  };
}
