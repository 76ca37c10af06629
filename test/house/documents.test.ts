/** What documents list is what the code has: the floors of docs/ARCHITECTURE.md, the log's events in docs/OPERATING.md. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { documentedEvents, loggedEvents } from './log-events.js';
import { readSources, readText } from './sources.js';

const document = readText('docs/ARCHITECTURE.md');
const rules = readText('test/house/imports.ts');

test('The diagram of the architecture shows the floors that are enforced, from the top down', () => {
  assert.ok(enforcedFloors(rules).length > 5);
  assert.deepEqual(drawnFloors(document), enforcedFloors(rules));
});

test('The table of the architecture explains every folder and file of the floors, and nothing else', () => {
  assert.deepEqual(explained(document).toSorted(), enforcedFloors(rules).flat().toSorted());
});

test('A planted floor that is drawn elsewhere, or not explained, is found', () => {
  const swapped = document.replace('floor2["koa"]', 'floor2["receiver"]');
  assert.notDeepEqual(drawnFloors(swapped), enforcedFloors(rules));
  assert.deepEqual(explained('| `koa/`, `log.ts` | x |\n| `jobs` | `y/` |\n'), ['koa', 'log', 'jobs']);
});

test('The manual for operators lists every event of the log from info upwards, with its level', () => {
  const sources = [...readSources('src')].filter(([path]) => !/^src\/(client|testing)\//.test(path));
  const logged = [...loggedEvents(new Map(sources))].filter(([, level]) => level !== 'debug');
  assert.ok(logged.length > 100);
  const documented = [...documentedEvents(readText('docs/OPERATING.md'))].map(String).toSorted();
  assert.deepEqual(documented, logged.map(String).toSorted());
});

test('A planted event is found, whatever way it is written', () => {
  const planted = `
    log.info({ a, b: [1, 2] }, 'plain');
    deps.log.warn(
      facts,
      "with an apostrophe's sign",
    );
    return log.error({ file, text: 'a, b' }, \`\${what} was (lost)\`);
    warnRefused({ cause }, 'refused');
    log.warn({ err: error }, unremoved);
    log.warn(message.facts, message.text);
    const unremoved = 'not removed';`;
  assert.deepEqual(Object.fromEntries(loggedEvents(new Map([['src/a.ts', planted]]))), {
    plain: 'info',
    "with an apostrophe's sign": 'warn',
    '… was (lost)': 'error',
    refused: 'warn',
    'not removed': 'warn',
  });
  assert.deepEqual(Object.fromEntries(documentedEvents('| `a`, `b` | warn | x |\n| `c` | text | y |\n')), {
    a: 'warn',
    b: 'warn',
  });
});

/** The list in imports.ts, as it is written. */
function enforcedFloors(text: string): string[][] {
  const list = /const floors[^=]*= \[\n([^]*?)^\];/m.exec(text)?.[1] ?? '';
  return list.split('\n').flatMap((line) => {
    const names = [...line.matchAll(/'([^']+)'/g)].map(([, name = '']) => name);
    return names.length > 0 ? [names] : [];
  });
}

/** The boxes of the diagram, in the order of their numbers. */
function drawnFloors(text: string): string[][] {
  const boxes = [...text.matchAll(/^ *floor(\d+)\["([^"]+)"\]$/gm)];
  return boxes.toSorted(([, a], [, b]) => Number(a) - Number(b)).map(([, , names = '']) => names.split(', '));
}

/** The names in the first column of the table, without their endings. */
function explained(text: string): string[] {
  const rows = text.match(/^\| `[a-z-]+(?:\/|\.ts)?`.*\|$/gm) ?? [];
  return rows.flatMap((row) =>
    [...(row.split('|')[1] ?? '').matchAll(/`([a-z-]+)(?:\/|\.ts)?`/g)].map(([, name = '']) => name),
  );
}
