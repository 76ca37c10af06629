/**
 * The shape of a logger, so that a host brings its own (pino and console-like loggers fit) and the library
 * never prints by itself.
 */

type Write = (facts: Readonly<Record<string, unknown>>, text: string) => void;

/** Facts first, then one plain sentence. Host paths may stand in the facts: a log stays on the machine. */
export interface Log {
  debug: Write;
  info: Write;
  warn: Write;
  error: Write;
}

/** The default: says nothing. */
export const silentLog: Log = Object.freeze({ debug() {}, info() {}, warn() {}, error() {} });
