/** The rules of the house over the project's own files. Each is also shown to fail on a planted violation. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';

import { errorCodes } from '../../src/errors.js';
import { coverageViolations } from './coverage.js';
import { importViolations } from './imports.js';
import { joinViolations } from './joins.js';
import { readSources, readText, type Sources } from './sources.js';

const maxLines = 300;

test('Imports run downwards only, and only the koa folder and the program know Koa and ws', () => {
  assert.deepEqual(importViolations(readSources('src')), []);
});

test('A planted import upwards, sideways, in a circle or of a host library is found', () => {
  const found = (planted: Record<string, string>): string[] =>
    importViolations(new Map(Object.entries(planted)));
  const leaf = "export const leaf = 'from';\n";

  assert.deepEqual(
    found({ 'src/jobs/a.ts': "import { leaf } from '../locks/b.js';\n", 'src/locks/b.ts': leaf }),
    [],
  );
  assert.deepEqual(
    found({ 'src/locks/a.ts': "import {\n  leaf,\n} from '../jobs/b.js';\n", 'src/jobs/b.ts': leaf }),
    ['src/locks/a.ts imports src/jobs/b.ts, which is not below it'],
  );
  assert.deepEqual(found({ 'src/locks/a.ts': "export * from '../peers/b.js';\n", 'src/peers/b.ts': leaf }), [
    'src/locks/a.ts imports src/peers/b.ts, which is not below it',
  ]);
  assert.deepEqual(
    found({ 'src/log.ts': "const { leaf } = await import('./disk/b.js');\n", 'src/disk/b.ts': leaf }),
    ['src/log.ts imports src/disk/b.ts, which is not below it'],
  );
  assert.deepEqual(
    found({ 'src/disk/a.ts': "import './b.js';\n", 'src/disk/b.ts': "import type { A } from './a.js';\n" }),
    ['a circle: src/disk/a.ts -> src/disk/b.ts -> src/disk/a.ts'],
  );
  assert.deepEqual(
    found({ 'src/server/a.ts': "import type { WebSocket } from 'ws';\nimport type W from 'wsx';\n" }),
    ['src/server/a.ts imports ws'],
  );
  assert.deepEqual(found({ 'src/peers/a.ts': "const b = await import('bonjour-service');\n" }), [
    'src/peers/a.ts imports bonjour-service',
  ]);
  assert.deepEqual(found({ 'src/paths/a.ts': "import { z } from 'zod';\nimport 'node:path';\n" }), [
    'src/paths/a.ts imports zod',
  ]);
  assert.deepEqual(found({ 'src/utils/a.ts': leaf, 'src/disk/b.ts': "import './gone.js';\n" }), [
    'src/utils/a.ts is on no floor',
    'src/disk/b.ts imports src/disk/gone.ts, which does not exist',
  ]);
});

test('Only src/paths builds a path from what a peer has said', () => {
  assert.deepEqual(joinViolations(readSources('src')), []);
});

test('A planted path that is built from a field of a peer is found', () => {
  const found = (text: string): number => joinViolations(new Map([['src/jobs/a.ts', text]])).length;

  for (const planted of [
    'join(root, frame.device_name)',
    'path.join(root, job.peerJobId)',
    'join(\n  root,\n  key.dashboardId,\n)',
    'posix.resolve(request.file)',
    'resolve(root, fileName)',
    "join(root, 'x', `${jobId}.json`)",
    '`${root}/${job.file}`',
    '`${dashboardId}/x`',
  ]) {
    assert.equal(found(planted), 1, planted);
    assert.equal(joinViolations(new Map([['src/paths/a.ts', planted]])).length, 0, planted);
  }
  for (const innocent of [
    "join(layout.subtree(key), 'device')",
    "names.join(', ')",
    'new Promise((resolve) => resolve(file))',
    'join(layout.jobsDir, record.id)',
    'join(folder, file)',
    "join(locksDir, hashName('subtree', key.dashboardId))",
    'join(directory, profile)',
    '`compiling ${file} now`',
  ]) {
    assert.equal(found(innocent), 0, innocent);
  }
});

test('Every module begins with why it exists and is short', () => {
  assert.deepEqual(shapeViolations(readSources('src', 'scripts', 'test', 'examples', 'bench')), []);
});

test('A planted module without its reason, or with too many lines, is found', () => {
  const found = (path: string, text: string): string[] => shapeViolations(new Map([[path, text]]));
  assert.deepEqual(found('src/a.ts', '#!/usr/bin/env node\n/** Why. */\n'), []);
  assert.deepEqual(found('src/a.ts', "import 'node:fs';\n/** Why. */\n"), [
    'src/a.ts does not begin with /**',
  ]);
  assert.deepEqual(found('src/a.ts', `/** Why. */${'\n'.repeat(300)}`), []);
  assert.deepEqual(found('src/a.ts', `/** Why. */${'\n'.repeat(301)}`), ['src/a.ts has 301 lines']);
});

/** Tests may be longer than the module that they test: three short files of tests cost more than one long one. */
function shapeViolations(sources: Sources): string[] {
  return [...sources]
    .filter(([path]) => !path.endsWith('.test.ts'))
    .flatMap(([path, text]) => {
      const lines = text.split('\n').length - 1;
      return [
        ...(/^(#!.*\n)?\/\*\*/.test(text) ? [] : [`${path} does not begin with /**`]),
        ...(lines > maxLines ? [`${path} has ${lines} lines`] : []),
      ];
    });
}

test('Every source file has a test of its name, or a test that says that it covers it', () => {
  assert.deepEqual(coverageViolations(readSources('src'), readSources('test')), []);
});

test('A planted source without a test, and a test that covers a missing source, are found', () => {
  const found = (path: string, tests: Record<string, string>): string[] =>
    coverageViolations(new Map([[path, '']]), new Map(Object.entries(tests)));
  const none = ['src/jobs/queue.ts has no test of its name, and no test says that it covers it'];

  for (const name of ['queue', 'queue-order', 'old-queue', 'old-queue.real'])
    assert.deepEqual(found('src/jobs/queue.ts', { [`test/jobs/${name}.test.ts`]: '' }), [], name);
  for (const name of ['jobs/queues.test.ts', 'koa/queue.test.ts', 'jobs/queue.ts', 'queue.test.ts'])
    assert.deepEqual(found('src/jobs/queue.ts', { [`test/${name}`]: '' }), none, name);

  for (const comment of [
    '/** Covers src/jobs/queue.ts. */',
    '/** A. Covers src/log.ts, src/jobs/queue.ts and src/log.ts. */',
    '/**\n * A. Covers src/log.ts and\n * src/jobs/queue.ts.\n */',
  ])
    assert.ok(!found('src/jobs/queue.ts', { 'test/a.test.ts': comment }).includes(none[0] ?? ''), comment);
  for (const text of ["import 'src/jobs/queue.ts';", '/** A. */\n/** Covers src/jobs/queue.ts. */'])
    assert.deepEqual(found('src/jobs/queue.ts', { 'test/a.test.ts': text }), none, text);
  assert.deepEqual(found('src/log.ts', { 'test/log.test.ts': '/** Covers src/gone.ts. */' }), [
    'a test says that it covers src/gone.ts, which does not exist',
  ]);
});

test('The lock file names no registry, so that it installs from whichever one npm is set up for', () => {
  const { packages } = JSON.parse(readText('package-lock.json')) as {
    packages: Record<string, { resolved?: string }>;
  };
  assert.ok(Object.keys(packages).length > 50);
  assert.deepEqual(
    Object.keys(packages).filter((name) => packages[name]?.resolved !== undefined),
    [],
  );
});

test('The error table of the README is the one of the source', () => {
  const readme = existsSync('README.md') ? readText('README.md') : '';
  const rows = [...readme.matchAll(/^\| `([A-Z_]+)`\s+\|/gm)].map(([, code]) => code);
  assert.deepEqual(rows, Object.keys(errorCodes));
});

test('An error reaches the log whole, as `err`, and never as its message alone', () => {
  assert.deepEqual(lossyLogs(readSources('src')), []);
});

test('A planted log call that loses an error is found', () => {
  const found = (text: string): number => lossyLogs(new Map([['src/a.ts', text]])).length;
  assert.equal(found("log.warn({ error: messageOf(error) }, 'x failed')"), 1);
  assert.equal(found("deps.log.error({ id, error }, 'x failed')"), 1);
  assert.equal(found("log.info({ id, cause: messageOf(cause) }, 'x failed')"), 1);
  assert.equal(found("log.warn({ id, err: error }, 'x failed')"), 0);
});

function lossyLogs(sources: Sources): string[] {
  return [...sources].flatMap(([path, text]) =>
    [...text.matchAll(/\blog\.(?:debug|info|warn|error)\(\s*\{([^}]*)\}/g)]
      .filter(([, facts = '']) => /\bmessageOf\(|(?:^|,)\s*error\s*(?:[,:]|$)/.test(facts))
      .map(([call]) => `${path}: ${call}`),
  );
}

test('No exported type has the name of another type', () => {
  assert.deepEqual(repeatedTypes(readSources('src')), []);
});

test('A planted type of the same name is found, whether or not the other is exported', () => {
  const found = (other: string): string[] =>
    repeatedTypes(
      new Map([
        ['src/a.ts', 'export interface Session {}\n'],
        ['src/b.ts', other],
      ]),
    );
  const expected = ['Session stands in src/a.ts and src/b.ts'];
  assert.deepEqual(found('export type Session = string;\n'), expected);
  assert.deepEqual(found('interface Session {}\n'), expected);
  assert.deepEqual(found('export class Session {}\n'), expected);
  assert.deepEqual(found('export interface SessionEvent {}\n'), []);
});

function repeatedTypes(sources: Sources): string[] {
  const places = new Map<string, { readonly path: string; readonly isExported: boolean }[]>();
  for (const [path, text] of sources) {
    for (const [, word, name = ''] of text.matchAll(/^(export )?(?:interface|type|class) (\w+)/gm)) {
      places.set(name, [...(places.get(name) ?? []), { path, isExported: word !== undefined }]);
    }
  }
  return [...places]
    .filter(([, found]) => found.length > 1 && found.some(({ isExported }) => isExported))
    .map(([name, found]) => `${name} stands in ${found.map(({ path }) => path).join(' and ')}`);
}
