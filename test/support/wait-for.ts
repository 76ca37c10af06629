/**
 * Waiting for a condition, never for luck: a test asks again and again until the thing has happened, and says what
 * did not happen when the deadline has passed. A fixed sleep is either too short on a busy machine or too long.
 */
import { setTimeout as pause } from 'node:timers/promises';

const intervalMs = 10;

/**
 * Resolves with the first answer of `condition` that is not falsy. Rejects once `deadlineMs` (5 s unless said) has
 * passed, naming `what` and the error that the last question threw, if any; errors before the deadline are no answer.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  {
    deadlineMs = 5_000,
    what = 'the condition',
  }: { readonly deadlineMs?: number; readonly what?: string } = {},
): Promise<NonNullable<T>> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    let failure: unknown;
    try {
      const answer = await condition();
      if (answer) return answer;
    } catch (error) {
      failure = error;
    }
    if (performance.now() > end) {
      throw new Error(`${what} did not come about within ${deadlineMs} ms`, { cause: failure });
    }
    await pause(intervalMs);
  }
}
