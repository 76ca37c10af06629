/** Turns what was recorded into the files of a flow, in the order in which it enters them, and into tables. */
import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';

import { flows, type FlowName } from './flows.js';
import type { Slice } from './recorder.js';

export interface EnteredFile {
  readonly path: string;
  readonly lines: number;
  /** The step in which the flow entered it first. */
  readonly step: string;
  /** Whether only a worker enters it. */
  readonly isWorkerOnly: boolean;
  /** Names of the functions that were called. */
  readonly functions: readonly string[];
  /** How many functions without a name were called. */
  readonly closures: number;
}

const root = new URL('../../', import.meta.url);

/** The files of a flow in the order of first entry. Those that one slice shows together: whoever imports comes first. */
export function filesOf(slices: readonly Slice[]): EnteredFile[] {
  const rank = new Map(importersFirst().map((path, at) => [path, at]));
  const rankOf = (path: string): number => rank.get(path) ?? Infinity;
  const functions = new Map<string, Set<string>>();
  const inMain = new Set<string>();
  const first = new Map<string, string>();
  for (const { step, thread, calls } of slices) {
    for (const path of [...calls.keys()].toSorted((a, b) => rankOf(a) - rankOf(b))) {
      if (thread === 'main') inMain.add(path);
      if (!first.has(path)) first.set(path, step);
      const known = functions.get(path) ?? new Set();
      functions.set(path, known);
      for (const call of calls.get(path) ?? []) known.add(call);
    }
  }
  return [...first].map(([path, step]) => {
    const names = [...(functions.get(path) ?? [])].map((call) => call.replace(/@\d+$/, ''));
    return {
      ...{ path, step, isWorkerOnly: !inMain.has(path) },
      lines: readSource(path).split('\n').length - 1,
      functions: names.filter(Boolean),
      closures: names.filter((name) => name === '').length,
    };
  });
}

/** All files of `src`, each before those that it imports at run time. */
function importersFirst(): string[] {
  const names = readdirSync(new URL('src/', root), { recursive: true, encoding: 'utf8' });
  const paths = names
    .map((name) => `src/${name.replaceAll('\\', '/')}`)
    .filter((path) => /\.[jt]s$/.test(path));
  const known = new Set(paths);
  const importsFirst = new Set<string>();

  function visit(path: string, trail: readonly string[]): void {
    if (importsFirst.has(path) || trail.includes(path)) return;
    for (const target of importsOf(path)) if (known.has(target)) visit(target, [...trail, path]);
    importsFirst.add(path);
  }

  for (const path of paths.toSorted()) visit(path, []);
  return [...importsFirst].toReversed();
}

function importsOf(path: string): string[] {
  const statement = /^(?:import|export)\b(?! type\b)[^'";]*?\bfrom\s*'(\.[^']+)'/gm;
  return [...readSource(path).matchAll(statement)].map(([, name = '']) =>
    posix.join(posix.dirname(path), name).replace(/\.js$/, '.ts'),
  );
}

function readSource(path: string): string {
  return readFileSync(new URL(path, root), 'utf8');
}

/** The whole flow, step by step. */
export function describeFlow(name: FlowName, files: readonly EnteredFile[]): string {
  const width = Math.max(...files.map(({ path }) => path.length));
  const rows = files.flatMap(({ path, lines, step, isWorkerOnly, functions, closures }, at) => [
    ...(files[at - 1]?.step === step ? [] : [`  ${step}`]),
    [
      `${String(at + 1).padStart(5)}  ${path.padEnd(width)}`,
      `${String(lines).padStart(4)} lines`,
      `${isWorkerOnly ? 'worker ' : ''}${called(functions, closures)}`,
    ].join('  '),
  ]);
  return [`\n${name}: ${flows[name].what}`, `  ${totals(files)}`, ...rows].join('\n');
}

function called(functions: readonly string[], closures: number): string {
  const names = functions.length === 1 ? `${functions[0]}()` : `${functions.length} functions`;
  const others = closures === 1 ? '1 closure' : `${closures} closures`;
  return [...(functions.length > 0 ? [names] : []), ...(closures > 0 ? [others] : [])].join(', ');
}

function totals(files: readonly EnteredFile[]): string {
  const inWorker = files.filter(({ isWorkerOnly }) => isWorkerOnly).length;
  const workers = inWorker === 0 ? '' : ` (${inWorker} of them in a worker only)`;
  return `${files.length} files${workers}, ${functionsOf(files)} functions, ${linesOf(files)} lines`;
}

function functionsOf(files: readonly EnteredFile[]): number {
  return files.reduce((sum, { functions }) => sum + functions.length, 0);
}

function linesOf(files: readonly EnteredFile[]): number {
  return files.reduce((sum, { lines }) => sum + lines, 0);
}

/** One row a flow: as text for the terminal, or as Markdown for a document. */
export function summarize(
  recorded: ReadonlyMap<FlowName, readonly EnteredFile[]>,
  isMarkdown: boolean,
): string {
  const rows = [...recorded].map(([name, files]) => {
    const { what, goal } = flows[name];
    const figures = [files.length, goal ?? '', functionsOf(files), linesOf(files)].map(String);
    return [name, what, ...figures];
  });
  const table = [['flow', 'what happens', 'files', 'goal', 'functions', 'lines'], ...rows];
  const widths = (table[0] ?? []).map((_, at) => Math.max(...table.map((row) => row[at]?.length ?? 0)));
  const pad = (row: readonly string[]): string[] =>
    row.map((cell, at) => (at < 2 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)));
  if (!isMarkdown) return `\n${table.map((row) => pad(row).join('  ')).join('\n')}`;
  const [head = [], ...body] = table.map((row) => `| ${pad(row).join(' | ')} |`);
  const rule = widths.map((width, at) => (at < 2 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  return [head, `| ${rule.join(' | ')} |`, ...body].join('\n');
}

/** One sentence for each flow that enters more files than its goal, or none, which means that nothing was recorded. */
export function overGoal(recorded: ReadonlyMap<FlowName, readonly EnteredFile[]>): string[] {
  return [...recorded].flatMap(([name, { length }]) => {
    const { goal } = flows[name];
    if (length === 0) return [`${name} enters no file: expected at least one`];
    return goal !== null && length > goal ? [`${name} enters ${length} files: expected at most ${goal}`] : [];
  });
}
