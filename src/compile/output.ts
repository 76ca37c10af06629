/**
 * Recognizes in a compile's output what its exit code does not tell: a killed compiler looks like an error in the
 * configuration, and a broken installation can exit with 0. The texts are those of ESPHome 2026.10 and its tools.
 */
import { plainText } from '../esphome/progress.js';
import { toolNames } from '../esphome/platforms.js';

/** Facts from the whole output of one compile. */
export interface OutputMarks {
  /** Signal 9 ended a compiler. */
  readonly killed: boolean;
  /** A memory allocation failed. */
  readonly outOfMemory: boolean;
  readonly diskFull: boolean;
  readonly downloadFailed: boolean;
  /** The shared tools are half installed or damaged. */
  readonly brokenTools: boolean;
  /** The code that the configuration asks for does not compile. */
  readonly sourceError: boolean;
  /** The text that contradicts an exit code of 0, or null. */
  readonly contradiction: string | null;
}

export const noMarks: OutputMarks = Object.freeze({
  killed: false,
  outOfMemory: false,
  diskFull: false,
  downloadFailed: false,
  brokenTools: false,
  sourceError: false,
  contradiction: null,
});

/** Device Builder 1.26 takes these for a failure whatever the exit code, except in a WARNING. */
const contradictions = ['ModuleNotFoundError', 'ImportError', 'FileNotFoundError', 'command not found'];
/** The messages of gcc (two forms), its linker, a shell, ninja, and SCons with and without a shell between. */
const killed =
  /fatal error: Killed signal|compiler error: Killed\b|terminated with signal 9\b|^Killed\b|\b\d+ Killed\b|^FAILED: \[code=137\]|^\*\*\* \[.{1,1000}\] Error (?:137|-9)\s*$/;
const outOfMemory =
  /\bout of memory allocating\b|virtual memory exhausted|Cannot allocate memory|^MemoryError\b|\bstd::bad_alloc\b/;
const diskFull = /No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]|\b(?:ENOSPC|EDQUOT)\b/;
/** The messages of ESPHome, PlatformIO, git, pip and Python for a host that they cannot reach. */
const downloadFailed = [
  /^ERROR Failed to download/,
  /^ERROR Install requirements for .{1,400} failure\s*$/,
  /^HTTPClientError: ?\s*$/,
  /^VCSBaseException: /,
  /^fatal: unable to access '/,
  /Could not resolve host|Temporary failure in name resolution|Name or service not known/,
  /Network is unreachable|Max retries exceeded with url|Failed to establish a new connection/,
  /\b(?:ConnectError|ConnectTimeout|ReadTimeout|ConnectionError|URLError)\b: /,
];

/** A path among the tools, matched from its beginning, which keeps the search linear. */
const toolPath = `(?=[^\\s'":]{0,400}/(?:${Object.values(toolNames).join('|')})/)[^\\s'":]{1,800}`;
/** A path inside a compiler's own directory: its headers include only each other. */
const compilerPath = `(?=[^\\s'":]{0,400}/(?:toolchains?(?:-[\\w-]{1,40})?|[\\w-]{1,40}-(?:elf|eabi))/)${toolPath}`;
const standardHeaders = [
  'assert|ctype|errno|limits|math|stdarg|stdbool|stddef|stdint|stdio|stdlib|string|time',
  'algorithm|array|atomic|cmath|cstdint|cstdio|cstdlib|cstring|functional|map|memory|type_traits|utility|vector',
].join('|');
/**
 * From the sources of ESPHome 2026.10 and PlatformIO, from user reports of issues that deleting the tools solved, and
 * from tools that were damaged on purpose. They match tools or paths among them, never a file of the configuration.
 * All linear or bounded.
 */
const brokenTools = [
  new RegExp(
    `(?:^|[\\s'"])${toolPath}['"]?: (?:not found|No such file or directory|No module named|cannot execute|Exec format error)`,
  ),
  new RegExp(`No such file or directory: ['"]${toolPath}`),
  /\b(?:xtensa|riscv32|arm)-[\w-]{1,40}-(?:gcc|g\+\+|ar|ld|objcopy|size): (?:command )?not found/,
  /^ccache: error: execute_noreturn of .{1,800} failed: /,
  // Programs and libraries that only a compiler asks for.
  /^.{1,800}: fatal error: cannot execute '[\w-]{1,40}': /,
  /^.{0,800}collect2(?:\.exe)?: fatal error: cannot find '[\w.-]{1,40}'/,
  /ld(?:\.\w{1,10})?: cannot find -l(?:c|m|g|gcc|stdc\+\+|supc\+\+|nosys|c_nano)(?=[:\s]|$)/,
  new RegExp(`^${compilerPath}:\\d{1,9}:\\d{1,9}: fatal error: .{1,400}: No such file or directory`),
  new RegExp(`: fatal error: (?:${standardHeaders})(?:\\.h)?: No such file or directory`),
  // Truncated programs and libraries.
  /: (?:fatal error|internal compiler error): (?:Segmentation fault|Bus error|Illegal instruction) signal terminated program /,
  /^FAILED: \[code=139\]|^\*\*\* \[.{1,1000}\] Error (?:139|-11)\s*$/,
  new RegExp(
    `(?:^|[\\s'"])${toolPath}: .{0,80}(?:file format not recognized|malformed archive|file truncated|file in wrong format)`,
  ),
  // The installers' own checks.
  /^ERROR .{1,400} (?:toolchain install is incomplete: missing |is missing the expected bin directory;)/,
  /ModuleNotFoundError: No module named '(?:platformio|SCons|esptool|esp_idf_\w{1,40}|idf_component_manager|west)\b/,
  /Could not find one of '[^']{1,80}' manifest files in the package/,
  /executable not found in ESP-IDF environment/,
];

/** gcc names ESPHome's generated sources relative to the build directory. */
const sourceError = /^src\/[^:]{1,400}:\d{1,9}:(?:\d{1,9}:)? (?:fatal )?error: /;

/** Every line that matches a pattern above contains one of these, so most lines need only this one test. */
const telling = new RegExp(
  [
    'Killed|signal 9|=137|=139|Error|error|memory|bad_alloc|No space|quota|Errno|ENOSPC|EDQUOT|Failed to|not found',
    'No such|No module|cannot exec|cannot find|Could not|Exec format|fault|Illegal instr|not recognized|malformed',
    'truncated|wrong format|incomplete|is missing|unable to|unreachable|not known|in name res|Max retries|VCSBase|failure',
    'Timeout',
  ].join('|'),
);

/** Adds one line's facts. Returns the same object when the line adds none. */
export function readMarks(marks: OutputMarks, line: string): OutputMarks {
  const text = plainText(line);
  if (!telling.test(text)) return marks;
  const seen: OutputMarks = {
    killed: marks.killed || killed.test(text),
    outOfMemory: marks.outOfMemory || outOfMemory.test(text),
    diskFull: marks.diskFull || diskFull.test(text),
    downloadFailed: marks.downloadFailed || (isError(text) && matchesAny(downloadFailed, text)),
    brokenTools: marks.brokenTools || (isError(text) && matchesAny(brokenTools, text)),
    sourceError: marks.sourceError || sourceError.test(text),
    contradiction: marks.contradiction ?? contradictionIn(text),
  };
  const isSame = (Object.keys(seen) as (keyof OutputMarks)[]).every((key) => seen[key] === marks[key]);
  return isSame ? marks : seen;
}

/** pip, for one, warns about a connection before it tries again. */
function isError(text: string): boolean {
  return !/^(?:WARNING|INFO|DEBUG)\b/.test(text);
}

function matchesAny(patterns: readonly RegExp[], text: string): boolean {
  return patterns.some((pattern) => pattern.test(text));
}

function contradictionIn(text: string): string | null {
  if (text.startsWith('WARNING ')) return null;
  return contradictions.find((words) => text.includes(words)) ?? null;
}
