/**
 * Waits for a condition instead of a fixed time: a test polls until the condition holds, and the error names what
 * did not happen before the deadline. A fixed sleep is too short on a busy machine, or too long.
 */
import { setTimeout as pause } from 'node:timers/promises';

const intervalMs = 10;

/**
 * Resolves with the first truthy result of `condition`. Rejects once `deadlineMs` (5 s by default) has
 * passed, naming `what` and the error of the last call, if any; errors before the deadline are ignored.
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
