/**
 * What a compile's own words say about how it ended, apart from its exit code: a killed compiler looks like an
 * error in the configuration, and a broken installation can end with 0. Texts of ESPHome 2026.10 and its tools.
 */
import { plainText } from '../esphome/progress.js';
import { toolNames } from '../esphome/platforms.js';

/** Facts gathered over the whole output; one object a compile. */
export interface OutputMarks {
  /** A compiler was ended by signal 9. */
  readonly killed: boolean;
  /** Memory was asked for and refused. */
  readonly outOfMemory: boolean;
  readonly diskFull: boolean;
  readonly downloadFailed: boolean;
  /** The shared tools are half installed or damaged. */
  readonly brokenTools: boolean;
  /** The text that contradicts an exit code of 0, or null. */
  readonly contradiction: string | null;
}

export const noMarks: OutputMarks = Object.freeze({
  killed: false,
  outOfMemory: false,
  diskFull: false,
  downloadFailed: false,
  brokenTools: false,
  contradiction: null,
});

/** Device Builder 1.26 takes these for a failure whatever the exit code; a WARNING may say them. */
const contradictions = [
  'ModuleNotFoundError',
  'ImportError',
  'FileNotFoundError',
  'command not found',
] as const;
/** gcc of both manners, its linker, a shell, ninja, and SCons with and without a shell between. */
const killed =
  /fatal error: Killed signal|compiler error: Killed\b|terminated with signal 9\b|^Killed\b|\b\d+ Killed\b|^FAILED: \[code=137\]|^\*\*\* \[.{1,1000}\] Error (?:137|-9)\s*$/;
const outOfMemory =
  /\bout of memory allocating\b|virtual memory exhausted|Cannot allocate memory|^MemoryError\b|\bstd::bad_alloc\b/;
const diskFull = /No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]|\b(?:ENOSPC|EDQUOT)\b/;
const downloadFailed = /^ERROR Failed to download/;

/** A path among the tools, from its beginning, which keeps the search linear. */
const toolPath = `(?=[^\\s'":]{0,400}/(?:${Object.values(toolNames).join('|')})/)[^\\s'":]{1,800}`;
/**
 * From the sources of ESPHome 2026.10, PlatformIO and their users' reports of issues that ended when the tools were
 * deleted; not observed here. They name tools or a place among them, never a file of the configuration's. All linear
 * or bounded.
 */
const brokenTools = [
  new RegExp(
    `(?:^|[\\s'"])${toolPath}['"]?: (?:not found|No such file or directory|No module named|cannot execute)`,
  ),
  new RegExp(`No such file or directory: ['"]${toolPath}`),
  /\b(?:xtensa|riscv32|arm)-[\w-]{1,40}-(?:gcc|g\+\+|ar|ld|objcopy|size): (?:command )?not found/,
  /ModuleNotFoundError: No module named '(?:platformio|SCons|esptool|esp_idf_\w{1,40}|idf_component_manager|west)\b/,
  /Could not find one of '[^']{1,80}' manifest files in the package/,
  /executable not found in ESP-IDF environment/,
];

/** One of these is in every line that says anything of the above: a single look at the many lines that do not. */
const telling =
  /Killed|signal 9|=137|Error|memory|bad_alloc|No space|quota|Errno|ENOSPC|EDQUOT|Failed to|not found|No such|No module|cannot exec|Could not/;

/** Takes one more line. Gives the same object when it says nothing new. */
export function readMarks(marks: OutputMarks, line: string): OutputMarks {
  const text = plainText(line);
  if (!telling.test(text)) return marks;
  const seen: OutputMarks = {
    killed: marks.killed || killed.test(text),
    outOfMemory: marks.outOfMemory || outOfMemory.test(text),
    diskFull: marks.diskFull || diskFull.test(text),
    downloadFailed: marks.downloadFailed || downloadFailed.test(text),
    brokenTools: marks.brokenTools || soundsBroken(text),
    contradiction: marks.contradiction ?? contradictionIn(text),
  };
  const isSame = (Object.keys(seen) as (keyof OutputMarks)[]).every((key) => seen[key] === marks[key]);
  return isSame ? marks : seen;
}

function soundsBroken(text: string): boolean {
  return !text.startsWith('WARNING ') && brokenTools.some((pattern) => pattern.test(text));
}

function contradictionIn(text: string): string | null {
  if (text.startsWith('WARNING ')) return null;
  return contradictions.find((words) => text.includes(words)) ?? null;
}
