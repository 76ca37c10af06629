/**
 * Runs the tests and prints how much of src/ they execute: `npm run coverage`, with part of a path to run some tests only.
 * Node writes the coverage of every process, so child processes and threads count too, except the ones a test kills.
 * A file that no test loads is missing from the table and would raise the figure, so the script fails and names it.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { transformSync } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const parts = process.argv.slice(2);

const { status } = spawnSync('npx', ['--no-install', 'c8', 'node', 'scripts/test.mjs', ...parts], {
  cwd: root,
  stdio: 'inherit',
});
process.exitCode = status ?? 1;

const { total, ...files } = JSON.parse(readFileSync(`${root}coverage/coverage-summary.json`, 'utf8'));
const unloaded = sources().filter((path) => !Object.hasOwn(files, root + path) && hasCode(path));
if (parts.length === 0 && unloaded.length > 0) {
  console.error(`No test loads ${unloaded.join(', ')}`);
  process.exitCode = 1;
}
console.log(`\nCovered: ${total.lines.pct} % of the lines, ${total.branches.pct} % of the branches.`);

/** @returns {string[]} */
function sources() {
  return readdirSync(`${root}src`, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.[jt]s$/.test(name))
    .map((name) => `src/${name.replaceAll('\\', '/')}`)
    .toSorted();
}

/** A file of types alone is never loaded. @param {string} path */
function hasCode(path) {
  const { code } = transformSync(readFileSync(root + path, 'utf8'), {
    loader: path.endsWith('.ts') ? 'ts' : 'js',
    tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } },
  });
  return code.trim() !== '';
}
