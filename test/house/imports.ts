/**
 * The direction of imports: from the top floor down, never up, never between neighbours, never in a circle. It keeps
 * the wire free of Koa and the locks free of jobs; without it every module ends up importing every other.
 */
import { posix } from 'node:path';

import type { Sources } from './sources.js';

/** From the top down. Names are folders of src/ or its files; those on one floor do not import each other. */
const floors: readonly (readonly string[])[] = [
  ['cli', 'index'],
  ['koa'],
  ['receiver'],
  ['receiver-api'],
  ['client', 'recovery', 'testing', 'views'],
  ['server', 'retention'],
  ['jobs'],
  ['bundles', 'toolchains', 'peers'],
  ['protocol', 'artifacts', 'compile', 'provision'],
  ['esphome', 'locks'],
  ['disk', 'options'],
  ['paths', 'async', 'process'],
  ['log', 'errors'],
];

/** The host's libraries, and the only folders that may know them. */
const hostPackages = ['koa', 'koa-websocket', '@koa/router', 'ws', 'bonjour-service'];
const hostFolders = ['koa', 'cli'];

/** One sentence for each violation, in the order of the files. */
export function importViolations(sources: Sources): string[] {
  const graph = new Map([...sources].map(([path, text]) => [path, importsOf(path, text, sources)]));
  const found: string[] = [];
  for (const [path, imports] of graph) {
    const room = roomOf(path);
    if (floorOf(room) === -1) found.push(`${path} is on no floor`);
    for (const target of imports) {
      if (!target.startsWith('src/')) {
        const isHost = hostPackages.some((name) => target === name || target.startsWith(`${name}/`));
        if (isHost && !hostFolders.includes(room)) found.push(`${path} imports ${target}`);
        if (room === 'paths' && !target.startsWith('node:')) found.push(`${path} imports ${target}`);
      } else if (!sources.has(target)) {
        found.push(`${path} imports ${target}, which does not exist`);
      } else if (roomOf(target) !== room && floorOf(roomOf(target)) <= floorOf(room)) {
        found.push(`${path} imports ${target}, which is not below it`);
      }
    }
  }
  return [...found, ...circles(graph)];
}

/** Modules that are named at the start of a statement or in an `import()`; relative ones as paths of their source. */
function importsOf(path: string, text: string, sources: Sources): string[] {
  const statement = /^(?:import|export)\b(?:[^'";]*?\bfrom)?\s*'([^']+)'/gm;
  const call = /\bimport\(\s*'([^']+)'\s*\)/g;
  return [...text.matchAll(statement), ...text.matchAll(call)].map(([, name = '']) => {
    if (!name.startsWith('.')) return name;
    const target = posix.join(posix.dirname(path), name);
    return sources.has(target) ? target : target.replace(/\.js$/, '.ts');
  });
}

/** `src/jobs/store.ts` is in `jobs`, `src/log.ts` in `log`. */
function roomOf(path: string): string {
  return (path.split('/')[1] ?? '').replace(/\.[jt]s$/, '');
}

function floorOf(room: string): number {
  return floors.findIndex((floor) => floor.includes(room));
}

function circles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path))
      found.push(`a circle: ${[...trail.slice(trail.indexOf(path)), path].join(' -> ')}`);
    else if (!done.has(path)) for (const next of graph.get(path) ?? []) visit(next, [...trail, path]);
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return found;
}
