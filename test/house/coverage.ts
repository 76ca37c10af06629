/**
 * Each source file has a test that a newcomer finds: `src/jobs/queue.ts` is tested by `test/jobs/queue.test.ts` or by one
 * named `queue-…` beside it, or the first comment of some test file says "Covers src/jobs/queue.ts".
 */
import { posix } from 'node:path';

import type { Sources } from './sources.js';

/** The sources without such a test, and the sources that a comment names although they do not exist. */
export function coverageViolations(sources: Sources, tests: Sources): string[] {
  const files = [...tests].filter(([path]) => path.endsWith('.test.ts'));
  const named = new Set(files.flatMap(([, text]) => coveredBy(text)));
  const names = new Set(files.flatMap(([path]) => namesOf(path)));
  const uncovered = [...sources.keys()].filter((path) => !named.has(path) && !names.has(testedName(path)));
  const stale = [...named].filter((path) => !sources.has(path));
  return [
    ...uncovered.map((path) => `${path} has no test of its name, and no test says that it covers it`),
    ...stale.map((path) => `a test says that it covers ${path}, which does not exist`),
  ];
}

/** `jobs/queue` for `src/jobs/queue.ts`. */
function testedName(path: string): string {
  return path.replace(/^src\//, '').replace(/\.[jt]s$/, '');
}

/** `jobs/queue-order` and `jobs/queue` for `test/jobs/queue-order.test.ts`: each run of words that its name has. */
function namesOf(path: string): string[] {
  const folder = posix.dirname(path).replace(/^test\/?/, '');
  const words = posix.basename(path, '.test.ts').replace(/\..*$/, '').split('-');
  return words.flatMap((_, from) =>
    words.slice(from).map((_word, more) => posix.join(folder, words.slice(from, from + more + 1).join('-'))),
  );
}

const source = String.raw`src/[\w/-]+\.[jt]s`;

/** The sources in "Covers src/a.ts, src/b.ts" of the comment with which a file begins. */
function coveredBy(text: string): string[] {
  const comment = /^\/\*\*[^]*?\*\//.exec(text)?.[0].replaceAll(/\n \* ?/g, ' ') ?? '';
  const list = new RegExp(`\\bCovers (${source}(?:(?:,| and) ${source})*)`).exec(comment)?.[1] ?? '';
  return [...list.matchAll(new RegExp(source, 'g'))].map(([path]) => path);
}
