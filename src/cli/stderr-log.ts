/**
 * The log of the command line: one line a message on stderr, so that stdout stays for what the command says.
 * Control characters in facts cannot reach the terminal: JSON escapes them.
 */
import { isReceiverError, messageOf } from '../errors.js';
import type { Log } from '../log.js';

function write(level: string, facts: Readonly<Record<string, unknown>>, text: string): void {
  const shown = Object.keys(facts).length === 0 ? '' : ` ${JSON.stringify(facts, readable)}`;
  process.stderr.write(`${new Date().toISOString()} ${level} ${text}${shown}\n`);
}

function readable(_key: string, value: unknown): unknown {
  if (isReceiverError(value)) return { code: value.code, message: value.message, ...value.facts };
  return value instanceof Error ? messageOf(value) : value;
}

export const stderrLog: Log = Object.freeze({
  debug() {},
  info: (facts, text) => write('info', facts, text),
  warn: (facts, text) => write('warn', facts, text),
  error: (facts, text) => write('error', facts, text),
} satisfies Log);
