/** A logger that records its entries, for tests that expect a warning or none. */
import type { Log } from '../../src/log.js';

export interface RecordingLog extends Log {
  /** `level: text` of every entry, in order. */
  readonly entries: readonly string[];
}

export function recordingLog(): RecordingLog {
  const entries: string[] = [];
  const write =
    (level: string) =>
    (_facts: unknown, text: string): void =>
      void entries.push(`${level}: ${text}`);
  return { entries, debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
}
