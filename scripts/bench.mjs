/**
 * Runs the benchmarks: `node scripts/bench.mjs` all of bench/*.ts one after the other, `node scripts/bench.mjs
 * lock paths` those two. A name that does not exist is an error, and so is a benchmark that misses its limit.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const known = readdirSync(`${root}bench`)
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length))
  .toSorted();
const wanted = process.argv.length > 2 ? process.argv.slice(2) : known;

const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length > 0 || wanted.length === 0) {
  console.error(
    `No such benchmark: ${unknown.join(', ') || '(none at all)'}. There are: ${known.join(', ')}`,
  );
  process.exit(1);
}

for (const name of wanted) {
  console.log(`\n== ${name}`);
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', `bench/${name}.ts`], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) process.exitCode = 1;
}
