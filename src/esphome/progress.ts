/**
 * Reads a compile's progress from its output: pure, one line at a time, and never backwards.
 *
 * The texts are those of ESPHome 2026.10 and its tools. CMake's sub-builds and re-runs count separately, with small
 * totals, so only the largest total counts; otherwise the bar would reach 100 % in the first second of a ten minute
 * build. ESPHome's own ninja files have no sub-builds, so their small totals do count.
 */

/** In the order of a compile, which can skip any of them. */
export const compilePhases = [
  'starting',
  'validating',
  'fetching',
  'generating',
  'preparing',
  'toolchain',
  'configuring',
  'compiling',
  'done',
] as const;

export type CompilePhase = (typeof compilePhases)[number];

export interface Progress {
  readonly phase: CompilePhase;
  /** 0 to 100, of the phase; null while unknown. */
  readonly percent: number | null;
  /** Files compiled so far; becomes `expected` of the device's next build. */
  readonly compiled: number;
  /** The largest total that ninja has printed; 0 for none. */
  readonly total: number;
  /** Files that the previous build compiled, 0 if unknown. PlatformIO prints no total. */
  readonly expected: number;
}

/** Before the first line. `expected`: the `compiled` of the device's build before, if known. */
export function startOfProgress(expected = 0): Progress {
  return { phase: 'starting', percent: null, compiled: 0, total: 0, expected };
}

/** Adds one line of output to {@link startOfProgress}. Returns the same object when the line changes nothing. */
export function readProgress(progress: Progress, line: string): Progress {
  const text = plainText(line).trim();
  const ninja = ninjaStep.exec(text);
  if (ninja) return countNinja(progress, Number(ninja[1]), Number(ninja[2]), ninja[3] ?? '');
  const percent = /^\[ {0,2}(\d{1,3})%\]/.exec(text);
  if (percent && Number(percent[1]) <= 100) return raise(enter(progress, 'compiling'), Number(percent[1]));
  if (/^Compiling \S/.test(text)) return countFile(enter(progress, 'compiling'));
  const phase = phaseOf(text);
  return phase === null ? progress : enter(progress, phase);
}

/**
 * Text without terminal codes: colours, cursor moves, and links with their addresses. ESPHome's `--dashboard` writes the
 * escape character as the four characters `\033`.
 */
export function plainText(text: string): string {
  return text.replace(terminalLink, '').replace(terminalCode, '');
}

/** Bounded, because an unfinished one must not hide the text after it. */
const terminalLink = /(?:\x1b|\\033)\][^\x07\x1b\\\r\n]{0,2000}(?:\x07|\x1b\\|\\033\\)/g;
const terminalCode = /(?:\x1b|\\033)\[[0-9;:?]*[A-Za-z]/g;

const ninjaStep = /^\[(\d{1,7})\/(\d{1,7})\] ?(.*)$/;
/** The step names in ESPHome's own ninja files (host, native ESP8266); CMake's differ. */
const ownStep = /^(?:PCH|CC|CXX|AS|AR|LINK) /;
/** A smaller total of CMake's is a re-run or a sub-build. */
const minForeignTotal = 100;

const markers: readonly (readonly [CompilePhase, RegExp])[] = [
  ['validating', /^INFO (?:Extracting config bundle|Reading configuration)/],
  ['fetching', /^INFO (?:Cloning|Updating) /],
  ['generating', /^INFO Generating C\+\+ source/],
  // Comes after "Compiling app", because the build itself fetches the tools.
  ['toolchain', /^(?:INFO )?(?:Downloading|Unpacking|Extracting|Installing|Checking ESP-IDF)\b/],
  ['toolchain', /^(?:Tool|Platform|Library) Manager:/],
  [
    'configuring',
    /^(?:INFO )?(?:Discovering available ESP-IDF components|Regenerating CMakeLists|Reading CMake)/,
  ],
  ['preparing', /^INFO Compiling app/],
  ['compiling', /^(?:Archiving|Indexing|Linking) \S/],
  ['compiling', /^ninja: no work to do\./],
  ['done', /^INFO Successfully compiled program/],
];

function phaseOf(text: string): CompilePhase | null {
  return markers.find(([, marker]) => marker.test(text))?.[0] ?? null;
}

function enter(progress: Progress, phase: CompilePhase): Progress {
  if (compilePhases.indexOf(phase) <= compilePhases.indexOf(progress.phase)) return progress;
  return { ...progress, phase, percent: phase === 'done' ? 100 : null };
}

function countNinja(progress: Progress, step: number, total: number, text: string): Progress {
  if (total < minForeignTotal && !ownStep.test(text)) return progress;
  if (total === 0 || total < progress.total || step > total) return progress;
  const counted = { ...enter(progress, 'compiling'), total, compiled: Math.max(progress.compiled, step) };
  return raise(counted, Math.floor((step / total) * 100));
}

function countFile(progress: Progress): Progress {
  const compiled = progress.compiled + 1;
  const counted = { ...progress, compiled };
  if (progress.expected === 0) return counted;
  return raise(counted, Math.min(99, Math.floor((compiled / progress.expected) * 100)));
}

function raise(progress: Progress, percent: number): Progress {
  const shown = Math.max(progress.percent ?? 0, percent);
  return shown === progress.percent ? progress : { ...progress, percent: shown };
}
