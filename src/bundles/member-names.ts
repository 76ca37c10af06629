/**
 * Checks the names of a bundle's members and tracks the tree that they form.
 *
 * A name must be in its one plain spelling; nothing is normalized. Two names that the disk takes for one, by case or by
 * Unicode form, are refused too: the second would overwrite what was checked under the first.
 */
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { nameBytes } from '../disk/names.js';
import { ReceiverError, quote } from '../errors.js';
import type { BundleLimits } from '../options/core-options.js';

export type MemberKind = 'file' | 'directory';

export type MemberTree = ReturnType<typeof createMemberTree>;

/**
 * Cache and version control directories, which a later build would trust. A bundle holds them when a component's source is
 * the configuration directory itself (`path: .`), so they are left out. Other dot names are common: `.wifi.yaml` hides an
 * include from the dashboard's list.
 */
const reservedAtTop = new Set([
  ...['.esphome', '.pioenvs', '.pio', '.piolibdeps', '.bundle_staging', '.espressif', '.git'],
  ...['.remote_builds', '.receiver'],
]);

/** Controls, line separators and direction overrides. Bytes that are not UTF-8 are allowed, see disk/names.ts. */
const refusedCharacters = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u;

/** Maps a name to what the disk compares. */
export type FoldName = (path: string) => string;

/** `fold` is what {@link foldOf} finds out about the disk. */
export function createMemberTree(limits: BundleLimits, fold: FoldName) {
  const nodes = new Map<string, { readonly path: string; readonly kind: MemberKind }>();

  /** Returns true if the node is new. */
  function add(path: string, kind: MemberKind): boolean {
    const key = fold(path);
    const there = nodes.get(key);
    if (there === undefined) {
      if (nodes.size >= limits.members) throw refused(`the bundle has more than ${limits.members} members`);
      nodes.set(key, { path, kind });
      return true;
    }
    if (there.path !== path) {
      const pair = `${quote(there.path)} and ${quote(path)}`;
      throw refused(`the members ${pair} have the same name on the disk of the build server`);
    }
    if (there.kind !== kind) throw refused(`the member ${quote(path)} is both a file and a directory`);
    if (kind === 'file') throw refused(`the member ${quote(path)} comes twice`);
    return false;
  }

  return {
    /** Files and directories so far, including directories that only a path implies. */
    get size(): number {
      return nodes.size;
    },
    /**
     * Checks a member's name. Returns the reserved directory at the top that the member lies in, which keeps it out of
     * the tree, and null for every other member. Throws `BUNDLE`.
     */
    reservedDirectory(path: string): string | null {
      const fault = nameFault(path, limits);
      if (fault !== null) throw refused(`the member ${quote(path)} is refused: ${fault}`);
      const [top = ''] = path.split('/', 1);
      return reservedAtTop.has(foldCase(top)) ? top : null;
    },
    /** Adds a checked member. Returns the directories to create for it, outermost first. Throws `BUNDLE`. */
    admit(path: string, kind: MemberKind): readonly string[] {
      const directories: string[] = [];
      for (let end = path.indexOf('/'); end >= 0; end = path.indexOf('/', end + 1)) {
        const parent = path.slice(0, end);
        if (add(parent, 'directory')) directories.push(parent);
      }
      if (add(path, kind) && kind === 'directory') directories.push(path);
      return directories;
    },
    /** A member in the root whose name differs from this one only by case or by Unicode form. */
    twinOf(name: string): string | undefined {
      const folded = foldCase(name);
      for (const { path } of nodes.values()) {
        if (path !== name && !path.includes('/') && foldCase(path) === folded) return path;
      }
      return undefined;
    },
    /** Whether exactly this path is a file of the tree. */
    hasFile(path: string): boolean {
      const node = nodes.get(fold(path));
      return node?.path === path && node.kind === 'file';
    },
  };
}

function nameFault(path: string, limits: BundleLimits): string | null {
  if (path.length > limits.pathBytes || nameBytes(path) > limits.pathBytes) {
    return `its path is over ${limits.pathBytes} bytes`;
  }
  if (refusedCharacters.test(path)) return 'it holds a character that no path may have';
  if (path.startsWith('/')) return 'its path is absolute';
  const segments = path.split('/');
  if (path.split(/[/\\]/).includes('..')) return 'its path leads upwards';
  if (segments.some((segment) => segment === '' || segment === '.')) return 'its path is not plain';
  if (segments.length > limits.depth) return `it lies deeper than ${limits.depth} directories`;
  if (segments.some((segment) => nameBytes(segment) > limits.segmentBytes)) {
    return `a name in it is over ${limits.segmentBytes} bytes`;
  }
  return null;
}

/**
 * Finds out by trying which names the disk takes for one: a component with `README.md` and `readme.md` builds where they
 * are two files. The directory must be empty, and is empty afterwards. Throws system errors.
 */
export function foldOf(directory: string): FoldName {
  const keepsCase = isApart(directory, 'probe', 'PROBE');
  const keepsForm = isApart(directory, '\u00e9', 'e\u0301');
  return keepsCase && keepsForm ? (path) => path : foldCase;
}

function isApart(directory: string, name: string, other: string): boolean {
  const file = join(directory, name);
  writeFileSync(file, '', { flag: 'wx' });
  try {
    return !existsSync(join(directory, other));
  } finally {
    rmSync(file);
  }
}

/** Case-folds to a canonical form. Upper case comes first, because some letters have no other common form. */
export function foldCase(path: string): string {
  return path.normalize('NFC').toUpperCase().toLowerCase().normalize('NFC');
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}
