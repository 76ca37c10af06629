/**
 * What a compile's own words say about how it ended, apart from its exit code: a killed compiler looks like an
 * error in the configuration, and a broken installation can end with 0. Texts of ESPHome 2026.10 and its tools.
 */
import { plainText } from '../esphome/progress.js';

/** Facts gathered over the whole output; one object a compile. */
export interface OutputMarks {
  /** A compiler was ended by signal 9. */
  readonly killed: boolean;
  readonly diskFull: boolean;
  readonly downloadFailed: boolean;
  /** The text that contradicts an exit code of 0, or null. */
  readonly contradiction: string | null;
}

export const noMarks: OutputMarks = Object.freeze({
  killed: false,
  diskFull: false,
  downloadFailed: false,
  contradiction: null,
});

/** Device Builder 1.26 takes these for a failure whatever the exit code; a WARNING may say them. */
const contradictions = [
  'ModuleNotFoundError',
  'ImportError',
  'FileNotFoundError',
  'command not found',
] as const;
const killed = /fatal error: Killed signal|^Killed\b|\b\d+ Killed\b|^FAILED: \[code=137\]/;
const diskFull = 'No space left on device';
const downloadFailed = /^ERROR Failed to download/;

/** Takes one more line. Gives the same object when it says nothing new. */
export function readMarks(marks: OutputMarks, line: string): OutputMarks {
  const text = plainText(line);
  const seen: OutputMarks = {
    killed: marks.killed || killed.test(text),
    diskFull: marks.diskFull || text.includes(diskFull),
    downloadFailed: marks.downloadFailed || downloadFailed.test(text),
    contradiction: marks.contradiction ?? contradictionIn(text),
  };
  const isSame = (Object.keys(seen) as (keyof OutputMarks)[]).every((key) => seen[key] === marks[key]);
  return isSame ? marks : seen;
}

function contradictionIn(text: string): string | null {
  if (text.startsWith('WARNING ')) return null;
  return contradictions.find((words) => text.includes(words)) ?? null;
}
