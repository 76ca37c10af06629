/**
 * How far a compile is, read from its output: pure, one line at a time, and never backwards.
 *
 * The texts are those of ESPHome 2026.10 and its tools. Sub-builds and re-runs of CMake count on their own and
 * from small totals, so only the largest total counts; without that rule the bar would reach 100 % in the first
 * second of a ten minute build. ESPHome's own ninja files print no such thing, so their small totals do count.
 */

/** In the order in which a compile goes through them; none has to occur. */
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
  /** 0 to 100, of the phase; null as long as nothing tells. */
  readonly percent: number | null;
  /** Files compiled so far: what the next build of the same device is measured against. */
  readonly compiled: number;
  /** The largest total that ninja has named; 0 for none. */
  readonly total: number;
  /** How many files the previous build compiled, 0 when unknown. PlatformIO names no total of its own. */
  readonly expected: number;
}

/** A compile that has not said anything yet. */
export function startOfProgress(expected = 0): Progress {
  return { phase: 'starting', percent: null, compiled: 0, total: 0, expected };
}

/** Takes one more line of output. Gives the same object when the line says nothing new. */
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

/** A line without terminal codes; `--dashboard` writes the escape character as the four characters `\033`. */
export function plainText(line: string): string {
  return line.replace(/(?:\x1b|\\033)\[[0-9;?]*[A-Za-z]/g, '');
}

const ninjaStep = /^\[(\d{1,7})\/(\d{1,7})\] ?(.*)$/;
/** The step names of the ninja files that ESPHome writes itself (host, native ESP8266); CMake's read otherwise. */
const ownStep = /^(?:PCH|CC|CXX|AS|AR|LINK) /;
/** Below this, a total of CMake's is a re-run or a sub-build. */
const minForeignTotal = 100;

const markers: readonly (readonly [CompilePhase, RegExp])[] = [
  ['validating', /^INFO (?:Extracting config bundle|Reading configuration)/],
  ['fetching', /^INFO (?:Cloning|Updating) /],
  ['generating', /^INFO Generating C\+\+ source/],
  // After "Compiling app": the tools are fetched by the build itself.
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
