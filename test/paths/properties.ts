/**
 * Properties of every string, as functions with a number of runs: `npm test` does thousands, `npm run fuzz`
 * a million.
 */
import assert from 'node:assert/strict';
import nodePath from 'node:path';

import fc from 'fast-check';

import { isReceiverError } from '../../src/errors.js';
import {
  createPaths,
  deviceFromFile,
  fileName,
  formatConfiguration,
  dashboardId,
} from '../../src/paths/index.js';
import { goodConfiguration, hostileText, mutatedConfiguration, nearlyGoodName } from '../support/hostile.js';

const flavours = [
  { rules: nodePath.posix, paths: createPaths({ configDir: '/c/on fig', path: nodePath.posix }) },
  { rules: nodePath.win32, paths: createPaths({ configDir: 'C:\\con fig', path: nodePath.win32 }) },
] as const;

function outcome<T>(run: () => T): T | 'refused' {
  try {
    return run();
  } catch (error) {
    assert.ok(isReceiverError(error, 'TRAVERSAL'), `an untyped error: ${String(error)}`);
    return 'refused';
  }
}

/** Whether `path` lies strictly below `root`, normalised by that platform's rules. */
function below(rules: nodePath.PlatformPath, root: string, path: string): boolean {
  const way = rules.relative(root, rules.normalize(path));
  return way !== '' && !way.split(rules.sep).includes('..') && !rules.isAbsolute(way);
}

/** The four Unicode forms, each also in lower and upper case, as some file systems fold names. */
function foldings(name: string): Set<string> {
  const folded = new Set<string>();
  for (const form of ['NFC', 'NFD', 'NFKC', 'NFKD'] as const) {
    const text = name.normalize(form);
    for (const spelling of [text, text.toLowerCase(), text.toUpperCase()]) folded.add(spelling);
  }
  return folded;
}

/** Any text gives a key, null or a typed error; accepted text resolves inside its directory, on both platforms. */
export function parsesTotallyAndStaysInside(numRuns: number): void {
  fc.assert(
    fc.property(hostileText, (text) => {
      for (const { rules, paths } of flavours) {
        const key = outcome(() => paths.parseConfiguration(text));
        if (key === 'refused') {
          for (const ask of [paths.resolveDataDir, paths.resolveStoragePath, paths.resolveConfigPath]) {
            assert.equal(
              outcome(() => ask(text)),
              'refused',
              'one asks, another answers',
            );
          }
          continue;
        }
        const data = paths.resolveDataDir(text);
        const root = key === null ? data : paths.layout.subtree(key);
        assert.equal(data, root);
        if (key === null) assert.ok(below(rules, paths.configDir, data));
        for (const file of [
          paths.resolveStoragePath(text),
          paths.resolveValidatedPath(text),
          paths.resolveIdedataPath(text, { name: 'node', toolchain: 'arduino' }),
          paths.resolveBuildPath(text, { name: 'node' }),
        ]) {
          assert.ok(below(rules, root, file), `${file} is not below ${root}`);
        }
        assert.ok(below(rules, key === null ? paths.configDir : root, paths.resolveConfigPath(text)));
        if (key === null) continue;
        assert.ok(below(rules, paths.buildsDir, root));
        assert.ok(!below(rules, paths.layout.receiverDir, root) && root !== paths.layout.receiverDir);
      }
    }),
    { numRuns },
  );
}

/** A mutation of a valid string is refused, or local, or stays in the subtree that its own text names. */
export function mutationsNeverReachAnother(numRuns: number): void {
  const { paths } = flavours[0];
  fc.assert(
    fc.property(mutatedConfiguration, (text) => {
      const key = outcome(() => paths.parseConfiguration(text));
      if (key === 'refused' || key === null) return;
      assert.ok(text.includes(`${key.dashboardId}/${key.device}/`), 'the key is not spelled in the text');
    }),
    { numRuns },
  );
}

/** Parsing a formatted string gives its key, and formatting that again gives the same string. */
export function roundTrips(numRuns: number): void {
  const { paths } = flavours[0];
  fc.assert(
    fc.property(fc.stringMatching(/^[A-Za-z0-9_-]{8,64}$/), nearlyGoodName, (id, name) => {
      const device = outcome(() => deviceFromFile(name));
      if (device === 'refused') return;
      const key = { dashboardId: dashboardId(id), device };
      const text = formatConfiguration(key, name);
      assert.deepEqual({ ...paths.parseConfiguration(text) }, key);
      assert.equal(formatConfiguration(paths.parseConfiguration(text) ?? assert.fail(), name), text);
      assert.equal(nodePath.posix.basename(paths.resolveStoragePath(text)), `${name}.json`);
    }),
    { numRuns },
  );
}

/** Two different accepted names have different device directories, whatever a file system folds. */
export function namesNeverShareADirectory(numRuns: number): void {
  const owners = new Map<string, string>();
  fc.assert(
    fc.property(nearlyGoodName, (name) => {
      const device = outcome(() => deviceFromFile(name));
      if (device === 'refused') return;
      assert.equal(fileName(name), name, 'a name is never repaired');
      for (const folded of foldings(device)) {
        const owner = owners.get(folded);
        assert.ok(owner === undefined || owner === name, `${name} and ${owner} share ${folded}`);
        owners.set(folded, name);
      }
    }),
    { numRuns },
  );
}

/** The shortcut for plain strings and the full parser agree: a plain string with a detour gives the same key. */
export function goodStringsAreAccepted(numRuns: number): void {
  const { paths } = flavours[0];
  fc.assert(
    fc.property(goodConfiguration, (text) => {
      const key = paths.parseConfiguration(text);
      assert.equal(key !== null, text.startsWith('.esphome/'));
      if (key === null) return;
      const deeper = text.replace('/config/', '/config/rooms/');
      assert.deepEqual({ ...paths.parseConfiguration(deeper) }, { ...key });
      assert.equal(paths.resolveStoragePath(deeper), paths.resolveStoragePath(text));
    }),
    { numRuns },
  );
}
