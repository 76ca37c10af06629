/**
 * Checks the names of a bundle's members and tracks the tree that they form.
 *
 * A name must be in its one plain spelling; nothing is normalized. Two names that are the same on any file system, by
 * case or by Unicode form, are refused too: the second would overwrite what was checked under the first.
 */
import { ReceiverError, quote } from '../errors.js';
import type { BundleLimits } from '../options/core-options.js';

export type MemberKind = 'file' | 'directory';

export interface MemberTree {
  /** Files and directories so far, including directories that only a path implies. */
  readonly size: number;
  /** Adds a member. Returns the directories to create for it, outermost first. Throws `BUNDLE`. */
  admit(path: string, kind: MemberKind): readonly string[];
  /** Whether exactly this path is a file of the tree. */
  hasFile(path: string): boolean;
}

/**
 * Cache and version control directories: ESPHome's bundles never have them at the top, and a later build would trust
 * a planted one. Other dot names are common: `.wifi.yaml` hides an include from the dashboard's list.
 */
const reservedAtTop = new Set([
  ...['.esphome', '.pioenvs', '.pio', '.piolibdeps', '.bundle_staging', '.espressif', '.git'],
  ...['.remote_builds', '.receiver'],
]);

/** Controls, line separators, direction overrides, the backslash, and what broken UTF-8 decodes to. */
const refusedCharacters = /[\p{Cc}\p{Cs}\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd\\]/u;

interface Node {
  readonly path: string;
  readonly kind: MemberKind;
}

export function createMemberTree(limits: BundleLimits): MemberTree {
  const nodes = new Map<string, Node>();

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
      throw refused(
        `the members ${quote(there.path)} and ${quote(path)} have the same name on some file systems`,
      );
    }
    if (there.kind !== kind) throw refused(`the member ${quote(path)} is both a file and a directory`);
    if (kind === 'file') throw refused(`the member ${quote(path)} comes twice`);
    return false;
  }

  return {
    get size() {
      return nodes.size;
    },
    admit(path, kind) {
      const fault = nameFault(path, limits);
      if (fault !== null) throw refused(`the member ${quote(path)} is refused: ${fault}`);
      const directories: string[] = [];
      for (let end = path.indexOf('/'); end >= 0; end = path.indexOf('/', end + 1)) {
        const parent = path.slice(0, end);
        if (add(parent, 'directory')) directories.push(parent);
      }
      if (add(path, kind) && kind === 'directory') directories.push(path);
      return directories;
    },
    hasFile(path) {
      const node = nodes.get(fold(path));
      return node?.path === path && node.kind === 'file';
    },
  };
}

function nameFault(path: string, limits: BundleLimits): string | null {
  if (path.length > limits.pathBytes || Buffer.byteLength(path) > limits.pathBytes) {
    return `its path is over ${limits.pathBytes} bytes`;
  }
  if (refusedCharacters.test(path)) return 'it holds a character that no path may have';
  if (path.startsWith('/')) return 'its path is absolute';
  const segments = path.split('/');
  if (segments.includes('..')) return 'its path leads upwards';
  if (segments.some((segment) => segment === '' || segment === '.')) return 'its path is not plain';
  if (segments.length > limits.depth) return `it lies deeper than ${limits.depth} directories`;
  if (segments.some((segment) => Buffer.byteLength(segment) > limits.segmentBytes)) {
    return `a name in it is over ${limits.segmentBytes} bytes`;
  }
  return reservedAtTop.has(fold(segments[0] ?? '')) ? 'its directory is reserved' : null;
}

/** Case-folds to a canonical form. Upper case comes first, because some letters have no other common form. */
function fold(path: string): string {
  return path.normalize('NFC').toUpperCase().toLowerCase().normalize('NFC');
}

function refused(message: string): ReceiverError {
  return new ReceiverError('BUNDLE', message);
}
