/** The tables and frame fields of docs/PROTOCOL.md match the code, word for word and in order. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { parseToOffloader, parseToReceiver } from '../../src/protocol/frames.js';
import * as names from '../../src/protocol/constants.js';

const document = readFileSync(new URL('../../docs/PROTOCOL.md', import.meta.url), 'utf8');

test('The specification has every table of words, complete and in order, and no other table', () => {
  const { frameTypes, ...tables } = names;
  const expected = [
    ...Object.values(tables).map((table) => Object.entries(table)),
    Object.entries(frameTypes).map(([word, { direction, meaning }]) => [word, direction, meaning]),
  ];
  const found = tablesIn(document).filter(([header]) => ['word', 'type'].includes(header?.[0] ?? ''));
  const rows = found.map(([, , ...body]) => body.map(([word = '', ...rest]) => [unquoted(word), ...rest]));
  const sorted = (list: readonly unknown[]): string[] =>
    list.map((table) => JSON.stringify(table)).toSorted();
  assert.deepEqual(sorted(rows), sorted(expected));
});

/** Each table as a list of lines, each line as a list of cells. */
function tablesIn(text: string): string[][][] {
  const blocks = text.match(/(?:^\|.*\n)+/gm) ?? [];
  return blocks.map((block) => {
    const lines = block.trimEnd().split('\n');
    return lines.map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
  });
}

function unquoted(cell: string): string {
  return /^`(\w+)`$/.exec(cell)?.[1] ?? cell;
}

const samples = { text: 'queued', number: 7, 'yes or no': true } as const;
/** A value of another type for each kind. */
const wrong = { text: 7, number: true, 'yes or no': 1 } as const;
type Kind = keyof typeof samples;
/** The link frames have no schema, so no field is required. */
const lenient = new Set(['ping', 'pong', 'terminate']);

interface Fields {
  readonly needed: Readonly<Record<string, Kind>>;
  readonly optional: Readonly<Record<string, Kind>>;
}

test('Every frame has the fields of the specification, with the same types, required or optional', () => {
  const listed = fieldsIn(document);
  assert.deepEqual([...listed.keys()].toSorted(), Object.keys(names.frameTypes).toSorted());
  for (const [type, { needed, optional }] of listed) {
    const all = { type, ...sampled(needed), ...sampled(optional) };
    assert.deepEqual(Object.keys(read(all) ?? {}).toSorted(), Object.keys(all).toSorted(), type);
    assert.ok(read({ type, ...sampled(needed) }), `${type} without what is optional`);
    if (lenient.has(type)) continue;
    for (const [field, kind] of Object.entries(needed)) {
      assert.equal(read({ ...all, [field]: undefined }), undefined, `${type} without ${field}`);
      assert.equal(read({ ...all, [field]: wrong[kind] }), undefined, `${type} with a wrong ${field}`);
    }
  }
});

function fieldsIn(text: string): Map<string, Fields> {
  const items = text.match(/^- `\w+`[^]*?\.$/gm) ?? [];
  return new Map(
    items.flatMap((item) => {
      const [head = '', ...rest] = item.split(': ');
      const [needed = '', optional = ''] = rest.join(': ').split('optional: ');
      const fields = { needed: kindsIn(needed), optional: kindsIn(optional) };
      return [...head.matchAll(/`(\w+)`/g)].map(([, type = '']) => [type, fields] as const);
    }),
  );
}

function kindsIn(text: string): Record<string, Kind> {
  const found = text.matchAll(/`(\w+)`\s(text|number|yes\sor\sno)/g);
  return Object.fromEntries(
    [...found].map(([, field = '', kind = '']) => [field, kind.replaceAll(/\s/g, ' ') as Kind]),
  );
}

function sampled(fields: Readonly<Record<string, Kind>>): Record<string, unknown> {
  const special: Readonly<Record<string, unknown>> = { stream: 'stdout' };
  return Object.fromEntries(
    Object.entries(fields).map(([field, kind]) => [field, special[field] ?? samples[kind]]),
  );
}

/** The frame as parsed by the side that knows it; undefined if neither does. */
function read(frame: object): object | undefined {
  const bytes = Buffer.from(JSON.stringify(frame));
  const results = [parseToReceiver(bytes), parseToOffloader(bytes)];
  return results.flatMap((parsed) => (parsed.kind === 'frame' ? [parsed.frame] : []))[0];
}
