/** The floors that docs/ARCHITECTURE.md draws are the ones that imports.ts enforces. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readText } from './sources.js';

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
