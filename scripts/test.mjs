/**
 * Runs the tests, and fails when it finds none: on Node 20 a pattern without a match ends with 0 having run nothing.
 *
 *     node scripts/test.mjs [--real | --torture | --fuzz] [PART OF A FILE'S PATH ...]
 *
 * Without a flag it leaves out test/real, test/torture and test/fuzz; with one it runs that folder alone.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';

const root = new URL('..', import.meta.url);
const minutes = 60_000;

/** Each file runs in a process of its own, which is ended after this time. */
const fileTimeoutMs = { normal: 2 * minutes, real: 10 * minutes, torture: 60 * minutes, fuzz: 30 * minutes };

/** @param {string} command @param {string[]} args @returns {Promise<number>} the exit code, 1 for a signal */
function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit' });
    for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM']))
      process.on(signal, () => child.kill(signal));
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

/** These load the machine on purpose; the real programs mostly wait for each other. */
const oneAtATime = new Set(['torture', 'fuzz']);

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { real: { type: 'boolean' }, torture: { type: 'boolean' }, fuzz: { type: 'boolean' } },
});
const special = /** @type {const} */ (['real', 'torture', 'fuzz']);
const chosen = special.find((name) => values[name]);

const files = readdirSync(new URL('test', root), { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.test.ts'))
  .map((path) => `test/${path.replaceAll('\\', '/')}`)
  .filter((path) => special.find((name) => path.startsWith(`test/${name}/`)) === chosen)
  .filter((path) => positionals.length === 0 || positionals.some((part) => path.includes(part)))
  .toSorted();

if (files.length === 0) {
  console.error(`No test file fits: ${process.argv.slice(2).join(' ') || 'test/**/*.test.ts'}`);
  process.exit(1);
}

// Installing the real programs may take minutes, which no test's time limit should have to allow for.
if (chosen === 'real') {
  const code = await run(process.execPath, ['--import', 'tsx', 'test/real/provision.ts']);
  if (code !== 0) process.exit(code);
}

process.exitCode = await run(process.execPath, [
  '--import=tsx',
  '--test',
  '--test-reporter=spec',
  `--test-concurrency=${oneAtATime.has(chosen ?? '') ? 1 : availableParallelism()}`,
  `--test-timeout=${fileTimeoutMs[chosen ?? 'normal']}`,
  ...files,
]);
