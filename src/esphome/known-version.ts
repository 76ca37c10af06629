/**
 * The installed version as the link tells it, asked at most once in a while: every stranger's connection is answered
 * with it, and a Python process for each of them would let anybody on the network keep the machine busy.
 */

const freshMs = 30_000;

/**
 * Wraps `ask`: calls within 30 s of the last answer share it, calls at the same time share one question. A failure is
 * an answer too. `now` is monotonic, in milliseconds.
 */
export function createKnownVersion(
  ask: () => Promise<string>,
  now: () => number = () => performance.now(),
): () => Promise<string> {
  let answer: Promise<string> | null = null;
  let answeredAt = 0;

  return function knownVersion() {
    if (answer !== null && now() - answeredAt < freshMs) return answer;
    answeredAt = Infinity;
    answer = ask().finally(() => {
      answeredAt = now();
    });
    return answer;
  };
}
