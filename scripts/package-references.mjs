/**
 * Finds references from one file of the package to another that is not in it: imports, worker files, source maps and
 * links of the documents. Everything works in a checkout, where src/ and the whole of dist/ are at hand; only a user of
 * the package would notice. Documents also name modules, such as `jobs/runner`, and a name must not outlive its module.
 */
import { existsSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';

/** Documents may point at these parts of the repository, which are left out of the package on purpose. */
const repositoryOnly = /^(examples|bench|api)(\/|$)|^CONTRIBUTING\.md$/;

/**
 * One sentence for each reference to a missing file or heading.
 * @param {string} root @param {ReadonlySet<string>} packed @returns {string[]}
 */
export function danglingReferences(root, packed) {
  return [...packed].flatMap((path) => {
    const text = readFileSync(root + path, 'utf8');
    const targets = referencesOf(path, text).filter((target) => !isThere(root, packed, path, target));
    const modules = path.endsWith('.md') ? missingModules(root, text) : [];
    return [...targets, ...modules].map((target) => `${path} points to ${target}`);
  });
}

/** Relative references only, as they are written. @param {string} path @param {string} text @returns {string[]} */
function referencesOf(path, text) {
  if (path.endsWith('.md')) {
    const links = text.matchAll(/\]\((?!https?:|mailto:)([^)\s]+)\)/g);
    return [...links].map(([, target = '']) => target);
  }
  if (!/\.[cm]?[jt]s$/.test(path)) return [];
  return [
    ...text.matchAll(/\b(?:from|import) ?\(? ?['"](\.[^'"]+)['"]/g),
    ...text.matchAll(/\bnew URL\(['"]([^'"]+)['"], import\.meta\.url\)/g),
    // A worker's place is kept in a variable there. The same worker as .ts is for runs from the sources only.
    ...text.matchAll(/\bnew URL\(['"]([^'"]+\.js)['"], \w+\)/g),
    ...text.matchAll(/^\/\/# sourceMappingURL=(.+)$/gm),
    ...text.matchAll(/^\/\/\/ <reference path="(.+)"/gm),
  ].map(([, target = '']) => target);
}

/** @param {string} root @param {ReadonlySet<string>} packed @param {string} path @param {string} target */
function isThere(root, packed, path, target) {
  const [file = '', heading] = target.split('#');
  const found = file === '' ? path : posix.join(posix.dirname(path), file);
  if (repositoryOnly.test(found)) return existsSync(root + found);
  if (heading !== undefined) {
    return packed.has(found) && headingsOf(readFileSync(root + found, 'utf8')).has(heading);
  }
  return packed.has(path.endsWith('.d.ts') ? found.replace(/\.js$/, '.d.ts') : found);
}

/** The anchors that GitHub makes of a document's headings. @param {string} text @returns {Set<string>} */
function headingsOf(text) {
  const headings = text.matchAll(/^#+ (.+)$/gm);
  return new Set(
    [...headings].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

/** Names of modules in a folder of src/ where there is none. @param {string} root @param {string} text @returns {string[]} */
function missingModules(root, text) {
  return [...text.matchAll(/`(([a-z-]+)\/[a-z0-9-]+)(?:\.[jt]s)?`/g)]
    .filter(([, , folder = '']) => existsSync(`${root}src/${folder}`))
    .map(([, name = '']) => name)
    .filter((name) => !['.ts', '.js'].some((ending) => existsSync(`${root}src/${name}${ending}`)));
}
