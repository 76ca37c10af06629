/**
 * The project's own files as text, for rules that are checked over all of them. A rule takes the texts as a map, so
 * that its own test can hand it a planted violation: a rule that was never seen to fail guards nothing.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Path from the root of the project, forward slashes, to text. */
export type Sources = ReadonlyMap<string, string>;

export function readText(path: string): string {
  return readFileSync(`${root}${path}`, 'utf8');
}

/** All TypeScript and JavaScript below these folders; a folder that does not exist is an error. */
export function readSources(...folders: readonly string[]): Sources {
  const paths = folders.flatMap((folder) =>
    readdirSync(`${root}${folder}`, { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(ts|mts|js|mjs)$/.test(name))
      .map((name) => `${folder}/${name.replaceAll('\\', '/')}`),
  );
  return new Map(paths.toSorted().map((path) => [path, readText(path)]));
}
