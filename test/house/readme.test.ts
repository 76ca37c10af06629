/** What users copy from the documents compiles against the package, and the README stays as short as it was meant. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

import { changedBlocks, typescriptBlocks, userProject, type CodeBlock } from '../support/code-blocks.js';
import { readText } from './sources.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const maxWords = 2_000;

/** What a block calls and leaves to its reader. */
const leftToTheReader: Readonly<Record<string, string>> = {
  'router.get':
    "import type Router from '@koa/router';\nimport type {} from 'koa-esphome-receiver';\ndeclare const router: Router;\n",
  isAdmin: "declare function isAdmin(ctx: import('koa').Context): boolean;\n",
};

test('Every TypeScript block of the documents compiles against the package, and a planted fault is found', async (t) => {
  const blocks = documents().flatMap((path) =>
    [typescriptBlocks, changedBlocks].flatMap((blocksOf) => blocksOf(path, readText(path))),
  );
  assert.ok(blocks.some(({ path }) => path === 'examples/dashboard/README.md'));
  assert.ok(blocks.filter(({ path }) => path === 'README.md').length >= 3);
  const planted = typescriptBlocks(
    'planted.md',
    "Text\n\n```ts\nimport { createReceiver } from 'koa-esphome-receiver';\nawait createReceiver({ configDirectory: 'x' });\n```\n",
  );
  const errors = await typeErrors(t, [...blocks, ...planted]);
  assert.deepEqual(
    errors.filter((error) => !error.startsWith('planted.md')),
    [],
  );
  assert.match(errors.join('\n'), /^planted\.md:5: error .*configDirectory/);
});

test('The README has at most 2,000 words', () => {
  const words = readText('README.md').split(/\s+/).filter(Boolean).length;
  assert.ok(words <= maxWords, `it has ${words}`);
});

function documents(): string[] {
  const namesIn = (folder: string): string[] => readdirSync(join(root, folder)).toSorted();
  return [
    ...namesIn('.').filter((name) => name.endsWith('.md')),
    ...namesIn('docs').map((name) => `docs/${name}`),
    ...readdirSync(join(root, 'examples'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.md'))
      .map((name) => `examples/${name}`),
    'bench/README.md',
  ];
}

/** What the compiler says, with the document and its line in front. */
async function typeErrors(t: TestContext, blocks: readonly CodeBlock[]): Promise<string[]> {
  const { directory, tsconfig } = await userProject(t);
  for (const [n, { line, code }] of blocks.entries()) {
    const provided = Object.entries(leftToTheReader).filter(([name]) => code.includes(`${name}(`));
    // Line for line as in the document; what is left to the reader comes behind.
    const text = '\n'.repeat(line - 1) + code + provided.map(([, declaration]) => declaration).join('');
    await writeFile(join(directory, `block-${n}.ts`), text);
  }
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const args = [compiler, '-p', tsconfig, '--pretty', 'false'];
  const { stdout, status } = spawnSync(process.execPath, args, { cwd: directory, encoding: 'utf8' });
  const found = [...stdout.matchAll(/^(?:block-(\d+)\.ts\((\d+),\d+\): )?(error .*)$/gm)].map(
    ([, block = '', line, message]) => `${blocks[Number(block)]?.path}:${line}: ${message}`,
  );
  assert.equal(found.length > 0, status !== 0, stdout);
  return found;
}
