/**
 * The shape of a logger, so that a host brings its own (pino and console-like loggers fit) and the library never prints
 * by itself. Each line is a stable event name with facts; an error stands under `err`, with its stack and cause.
 */

type Write = (facts: Readonly<Record<string, unknown>>, text: string) => void;

/** Facts first, then the name of the event. Host paths may stand in the facts: a log stays on the machine. */
export interface Log {
  debug: Write;
  info: Write;
  warn: Write;
  error: Write;
}

/** The default: says nothing. */
export const silentLog: Log = Object.freeze({ debug() {}, info() {}, warn() {}, error() {} });

const minuteMs = 60_000;

/**
 * Warns of refusals, at most `perMinute` lines of them: whoever is refused decides how often it tries. The next line
 * after a pause counts those that were left out as `suppressed`.
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
