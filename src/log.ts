/**
 * The interface of a logger. The host provides it (pino and console-like loggers fit), and the library itself never
 * prints. Each line is a stable event name with facts; an error is the fact `err`, with its stack and cause.
 */

type Write = (facts: Readonly<Record<string, unknown>>, text: string) => void;

/** Facts first, then the name of the event. Facts can contain host paths, because a log stays on the machine. */
export interface Log {
  debug: Write;
  info: Write;
  warn: Write;
  error: Write;
}

/** The default. */
export const silentLog: Log = Object.freeze({ debug() {}, info() {}, warn() {}, error() {} });

const minuteMs = 60_000;

/**
 * Warns of refusals in at most `perMinute` lines, because a refused client decides how often it retries. The next line
 * has the number of omitted ones as `suppressed`.
 */
export function createRefusalLog(
  log: Log,
  clock: { steady(): number },
  { perMinute = 30 }: { readonly perMinute?: number } = {},
): Write {
  let since = -Infinity;
  let lines = 0;
  let suppressed = 0;
  return (facts, text) => {
    if (clock.steady() - since >= minuteMs) {
      since = clock.steady();
      lines = 0;
    }
    if (lines >= perMinute) {
      suppressed += 1;
      return;
    }
    lines += 1;
    log.warn(suppressed > 0 ? { ...facts, suppressed } : facts, text);
    suppressed = 0;
  };
}
