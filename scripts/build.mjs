/**
 * Builds dist/ from nothing, so that no file of a renamed module is ever published, and makes the program in it
 * runnable: TypeScript keeps the first line of main.ts but not its mode. The program is bundled into one file, without the
 * packages it depends on: loading 170 small modules took a quarter of its start time. zod is the exception, and only
 * the part in use is bundled: loading its 60 languages took a third of the rest. Then everything that no importer can
 * reach is removed: the program's separate modules, and declarations that no entry point leads to.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildSync } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const program = `${root}dist/cli/main.js`;

rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync('npx', ['--no-install', 'tsc', '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
const { dependencies, exports, peerDependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
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

removeExcept(/\.d\.ts$/, reachableDeclarations());
removeExcept(/^dist\/cli\//, new Set(['dist/cli/main.js']));

/** Every declaration that a subpath of package.json leads to, by imports. @returns {Set<string>} */
function reachableDeclarations() {
  const reached = new Set();
  const waiting = Object.values(exports).flatMap(({ types }) => (types ? [posix.normalize(types)] : []));
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    if (reached.has(path)) continue;
    reached.add(path);
    for (const [, name] of readFileSync(root + path, 'utf8').matchAll(
      /\b(?:from|import\() ?['"](\..+?)['"]/g,
    )) {
      waiting.push(posix.join(posix.dirname(path), String(name)).replace(/\.js$/, '.d.ts'));
    }
  }
  return reached;
}

/** @param {RegExp} pattern @param {Set<string>} kept */
function removeExcept(pattern, kept) {
  for (const name of readdirSync(`${root}dist`, { recursive: true, encoding: 'utf8' })) {
    const path = `dist/${name.replaceAll('\\', '/')}`;
    if (pattern.test(path) && !kept.has(path)) rmSync(root + path, { recursive: true, force: true });
  }
}
