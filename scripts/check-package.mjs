/**
 * Checks the package as a user would get it: everything that package.json promises is in the tarball and nothing else,
 * no file in it refers to one that is missing, it stays small, and its types resolve. The accident that this prevents: a
 * subpath that works here, from src/, and nowhere else.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { checkConsumers } from './check-consumer.mjs';
import { danglingReferences } from './package-references.mjs';

/** Unpacked, as npm counts it. */
const maxBytes = 3_000_000;
const root = fileURLToPath(new URL('..', import.meta.url));

execFileSync(process.execPath, ['scripts/build.mjs'], { cwd: root, stdio: 'inherit' });

if (readFileSync(`${root}package-lock.json`, 'utf8').includes('"resolved":')) {
  throw new Error('package-lock.json names a registry: install with omit-lockfile-registry-resolved');
}

await importAll();
const directory = mkdtempSync(join(tmpdir(), 'package-'));
try {
  const { filename, files, unpackedSize } = pack(directory);
  checkFiles(new Set(files.map((file) => file.path)));
  if (unpackedSize > maxBytes) {
    throw new Error(`the package has ${unpackedSize} bytes unpacked, expected at most ${maxBytes}`);
  }
  npx('publint', 'run', join(directory, filename), '--strict');
  npx('attw', join(directory, filename), '--profile', 'esm-only');
  checkConsumers(join(directory, filename));
  console.log(`The package is in order: ${files.length} files, ${unpackedSize} bytes unpacked.`);
} finally {
  rmSync(directory, { recursive: true, force: true });
}

/** Each subpath as a user imports it: a package may import itself by its name, through its `exports`. */
async function importAll() {
  const manifest = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  for (const subpath of Object.keys(manifest.exports).filter((name) => !name.endsWith('.json'))) {
    await import(manifest.name + subpath.slice(1));
  }
}

/**
 * The tarball that would be published.
 * @param {string} destination
 * @returns {{ filename: string, files: { path: string }[], unpackedSize: number }}
 */
function pack(destination) {
  const args = ['pack', '--ignore-scripts', '--json', '--pack-destination', destination];
  const output = execFileSync('npm', args, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return JSON.parse(output)[0];
}

/** @param {Set<string>} packed */
function checkFiles(packed) {
  const manifest = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  const promised = [
    ...targets(manifest.exports),
    ...targets(manifest.bin),
    'README.md',
    'CHANGELOG.md',
    'SECURITY.md',
    'LICENSE',
  ];
  const missing = promised.filter((file) => !packed.has(file));
  const stray = [...packed].filter(
    (file) => !/^(dist|docs)\/|^(package\.json|LICENSE|[A-Z]+\.md)$/.test(file) || file.endsWith('.map'),
  );
  const dangling = danglingReferences(root, packed);
  if (missing.length > 0) throw new Error(`promised but not packed: ${missing.join(', ')}`);
  if (stray.length > 0) throw new Error(`packed but not meant to be: ${stray.join(', ')}`);
  if (dangling.length > 0) throw new Error(`references to missing files:\n  ${dangling.join('\n  ')}`);
}

/** Every file that a part of package.json names. @param {unknown} value @returns {string[]} */
function targets(value) {
  if (typeof value === 'string') return [value.replace(/^\.\//, '')];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(targets) : [];
}

/** @param {string[]} args */
function npx(...args) {
  execFileSync('npx', ['--no-install', ...args], { cwd: root, stdio: 'inherit' });
}
