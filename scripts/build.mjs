/**
 * Builds dist/ from nothing, so that no file of a renamed module is ever published, and makes the program in it
 * runnable: TypeScript keeps the first line of main.ts but not its mode.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const program = `${root}dist/cli/main.js`;

rmSync(`${root}dist`, { recursive: true, force: true });
execFileSync('npx', ['--no-install', 'tsc', '-p', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' });
if (!readFileSync(program, 'utf8').startsWith('#!/usr/bin/env node\n')) {
  throw new Error('dist/cli/main.js does not begin with #!/usr/bin/env node');
}
chmodSync(program, 0o755);
