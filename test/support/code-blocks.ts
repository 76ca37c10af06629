/**
 * The TypeScript blocks of the documents, and a project in which they compile and run like a user's code: the
 * package has its own name there, and stands for the sources. Readers copy these blocks, so a wrong one costs every
 * reader the same hour.
 */
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { tempDir, type Cleanups } from './temp-dir.js';

const root = fileURLToPath(new URL('../..', import.meta.url));

export interface CodeBlock {
  /** The document's path from the root of the project. */
  readonly path: string;
  /** The line of the document where the code begins. */
  readonly line: number;
  readonly code: string;
}

export function typescriptBlocks(path: string, text: string): CodeBlock[] {
  return codeBlocks(path, text, 'ts|typescript');
}

/** What a change in TypeScript, shown as a diff, leads to; what it removes becomes empty lines. */
export function changedBlocks(path: string, text: string): CodeBlock[] {
  return codeBlocks(path, text, 'diff').map((block) => ({
    ...block,
    code: block.code.replace(/^-.*$/gm, '').replace(/^[+ ]/gm, ''),
  }));
}

export function codeBlocks(path: string, text: string, language: string): CodeBlock[] {
  const block = new RegExp(`^\`\`\`(?:${language})\\n([^]*?)^\`\`\`$`, 'gm');
  return [...text.matchAll(block)].map(({ index, 1: code = '' }) => ({
    path,
    line: text.slice(0, index).split('\n').length + 1,
    code,
  }));
}

export interface Project {
  readonly directory: string;
  readonly tsconfig: string;
}

/** An empty ES module project with the package and its dependencies installed. */
export async function userProject(t: Cleanups): Promise<Project> {
  const directory = join(await tempDir(t), 'project');
  const tsconfig = join(directory, 'tsconfig.json');
  await mkdir(directory);
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module' }));
  const paths = await entryPoints();
  const config = { extends: join(root, 'tsconfig.json'), compilerOptions: { paths }, include: ['**/*.ts'] };
  await writeFile(tsconfig, JSON.stringify(config));
  return { directory, tsconfig };
}

/** Each name that users import, with its source. */
async function entryPoints(): Promise<Record<string, string[]>> {
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as {
    readonly name: string;
    readonly exports: Readonly<Record<string, string | { readonly default: string }>>;
  };
  return Object.fromEntries(
    Object.entries(manifest.exports).flatMap(([subpath, target]) => {
      if (typeof target === 'string') return [];
      const source = target.default.replace(/^\.\/dist\/(.*)\.js$/, 'src/$1.ts');
      return [[manifest.name + subpath.slice(1), [join(root, source)]] as const];
    }),
  );
}
