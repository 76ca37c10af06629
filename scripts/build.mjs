/**
 * Builds dist/ from nothing, so that no file of a renamed module is ever published, and makes the program in it
 * runnable: TypeScript keeps the first line of main.ts but not its mode. The program is put into one file, without the
 * packages that it needs: to load 170 small modules took a quarter of its start. Only of zod the part that is used is in
 * it: zod comes with 60 languages, and to load them took a third of what was left.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { buildSync } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const program = `${root}dist/cli/main.js`;

rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync('npx', ['--no-install', 'tsc', '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
const { dependencies, peerDependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
const licence = readFileSync(`${root}node_modules/zod/LICENSE`, 'utf8').trim();
buildSync({
  absWorkingDir: root,
  entryPoints: ['src/cli/main.ts'],
  outfile: program,
  allowOverwrite: true,
  bundle: true,
  external: Object.keys({ ...dependencies, ...peerDependencies }).filter((name) => name !== 'zod'),
  banner: { js: `/*!\nWith parts of zod:\n\n${licence}\n*/` },
  platform: 'node',
  format: 'esm',
  target: 'node20.19',
  sourcemap: true,
  logLevel: 'warning',
});
const text = readFileSync(program, 'utf8');
if (text.includes('zod/v4/locales/he.js')) {
  throw new Error("all languages of zod are in the program: import it as `import * as z from 'zod'`");
}
if (!text.startsWith('#!/usr/bin/env node\n')) {
  throw new Error('dist/cli/main.js does not begin with #!/usr/bin/env node');
}
chmodSync(program, 0o755);
