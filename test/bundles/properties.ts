/**
 * Properties of every upload, as functions with a number of runs: `npm test` does some dozens, `npm run fuzz`
 * thousands.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';

import fc from 'fast-check';

import { createAssembler } from '../../src/protocol/transfer.js';
import { openThreadedIntake } from '../../src/bundles/threaded-intake.js';
import { decodeName, encodeName } from '../../src/disk/names.js';
import { hostileText } from '../support/hostile.js';
import type { Cleanups } from '../support/temp-dir.js';
import {
  bundle,
  config,
  configName,
  end,
  file,
  manifest,
  member,
  pax,
  paxPath,
  records,
  tar,
  treeOf,
} from './archives.js';
import { configurationFilename, place, refusalOf, send } from './send.js';
import { defaultOptions } from '../support/options.js';

const { bundleLimits } = defaultOptions;

/** Time limit for one upload, on a machine that is busy with other tests. */
const runTimeoutMs = 20_000;
/** Limit for memory above that at the start of a property, whatever is sent. */
const maxGrowthBytes = 256 * 1024 * 1024;

const name = fc.oneof(
  fc.constantFrom('a', 'ä.h', 'naïve Ünïcode', `${'größe-'.repeat(18)}ende.ttf`, 'x'.repeat(150)),
  fc.uint8Array({ minLength: 1, maxLength: 40, min: 0xa0 }).map((bytes) => decodeName(Buffer.from(bytes))),
);
const upload = fc.record({
  files: fc.array(
    fc.record({ folders: fc.array(name, { maxLength: 4 }), name, body: fc.uint8Array({ maxLength: 3_000 }) }),
    { maxLength: 6 },
  ),
  cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 60 }),
  level: fc.constantFrom(0, 1, 9),
  longNames: fc.constantFrom<(path: string) => Buffer>(
    (path) => paxPath(encodeName(path)),
    (path) =>
      member({ name: '././@LongLink', type: 'L' }, Buffer.concat([encodeName(path), Buffer.alloc(1)])),
  ),
});

/** Any tree unpacks to itself, however its archive is cut into chunks. */
export async function anyCutGivesTheSameTree(t: Cleanups, numRuns: number): Promise<void> {
  const { uploadsDir } = await place(t);
  await fc.assert(
    fc.asyncProperty(upload, async ({ files, cuts, level, longNames }) => {
      // The number keeps one file from being another one's folder.
      const sent = files.map(({ folders, name: last, body }, index) => {
        return [[`${index}`, ...folders, last].join('/'), Buffer.from(body)] as const;
      });
      const members = sent.map(([path, body]) => Buffer.concat([longNames(path), file('f', body)]));
      const archive = gzipSync(tar(manifest(), ...members, config), { level });
      const chunks = assembled(cut(archive, cuts));
      const staged = await inTime(
        send(openThreadedIntake({ uploadsDir, configurationFilename, bundleLimits }), chunks),
      );
      const found = [...(await treeOf(staged.directory))].filter(
        ([path]) => !path.endsWith('/') && path !== configName && path !== 'manifest.json',
      );
      assert.deepEqual(new Map(found), new Map(sent.map(([path, body]) => [path, body.toString('latin1')])));
      await staged.discard();
    }),
    { numRuns },
  );
}

const word = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(configName, 'manifest.json', 'a', 'a/b', '../../neighbour', '') },
  { weight: 3, arbitrary: hostileText },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)) },
);
const body = fc.oneof(
  fc.uint8Array({ maxLength: 1_500 }).map((bytes) => Buffer.from(bytes)),
  fc.dictionary(fc.constantFrom('path', 'size', 'linkpath', 'x'), hostileText).map(records),
  fc.jsonValue().map((value) => JSON.stringify(value)),
);
/** Headers with a valid checksum and any other content. */
const anyMember = fc
  .record({
    fields: fc.record(
      {
        name: word,
        type: fc.constantFrom(...Array.from('0123457xgLKSMN\0z')),
        mode: fc.nat(0o7777),
        linkname: fc.constantFrom('', '/etc/passwd', '../../neighbour'),
        prefix: fc.constantFrom('', '..', 'a'),
        sizeField: fc.oneof(fc.stringMatching(/^[0-7]{1,11}$/), fc.uint8Array({ maxLength: 12 }).map(String)),
      },
      { requiredKeys: ['name', 'type'] },
    ),
    body,
  })
  .map(({ fields, body: bytes }) => member(fields, bytes));
const whole = bundle(file('gr\u00f6\u00dfe.h'), pax({ path: 'a/b' }), file('f'));
const plain = tar(manifest(), pax({ path: 'gr\u00f6\u00dfe.h' }), file('f'), config);
const anyArchive = fc.oneof(
  fc.uint8Array({ maxLength: 2_000 }).map((bytes) => Buffer.from(bytes)),
  fc.uint8Array({ maxLength: 2_000 }).map((bytes) => gzipSync(bytes)),
  fc.nat(whole.length - 1).map((length) => whole.subarray(0, length)),
  edited(whole),
  edited(plain).map((bytes) => gzipSync(bytes)),
  fc.array(anyMember, { maxLength: 5 }).map((members) => gzipSync(Buffer.concat([...members, end]))),
  fc.array(anyMember, { maxLength: 5 }).map((members) => bundle(...members)),
  fc.nat(16 << 20).map((size) => bundle(member({ name: 'zeros' }, Buffer.alloc(size)))),
  fc.nat(1 << 20).map((size) => gzipSync(Buffer.concat([plain, Buffer.alloc(size)]))),
);

/** Any bytes give a bundle or a typed refusal, soon and in little memory, and leave nothing. */
export async function anyBytesGiveABundleOrARefusal(t: Cleanups, numRuns: number): Promise<void> {
  const there = await place(t);
  const start = process.memoryUsage.rss();
  await fc.assert(
    fc.asyncProperty(anyArchive, async (archive) => {
      await inTime(refusalOf(there, archive, { ratioFreeBytes: 1 << 20 }));
      const growth = process.memoryUsage.rss() - start;
      assert.ok(growth < maxGrowthBytes, `the memory has grown by ${growth} bytes`);
    }),
    { numRuns },
  );
}

function edited(bytes: Buffer): fc.Arbitrary<Buffer> {
  const edit = fc.tuple(fc.nat(bytes.length - 1), fc.nat(255));
  return fc.array(edit, { minLength: 1, maxLength: 6 }).map((edits) => {
    const copy = Buffer.from(bytes);
    for (const [at, value] of edits) copy[at] = value;
    return copy;
  });
}

/** Cuts at fractions of the length; a piece can be empty. */
function cut(bytes: Buffer, fractions: readonly number[]): Buffer[] {
  const points = fractions.map((fraction) => Math.round(fraction * bytes.length)).toSorted((a, b) => a - b);
  const at = [0, ...points, bytes.length];
  return at.slice(1).map((to, index) => bytes.subarray(at[index], to));
}

/** The pieces as they come out of a transfer over the wire. */
function* assembled(pieces: readonly Buffer[]): Generator<Buffer, void> {
  const bytes = Buffer.concat(pieces);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const assembler = createAssembler({ totalBytes: bytes.length, numChunks: pieces.length, sha256 });
  for (const [index, piece] of pieces.entries()) {
    const isLast = index === pieces.length - 1;
    const result = assembler.push({ index, dataBase64: piece.toString('base64'), isLast });
    assert.ok(result.ok && result.complete === isLast);
    yield result.bytes;
  }
}

async function inTime<T>(work: Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work;
  assert.ok(performance.now() - start < runTimeoutMs, 'one upload took too long');
  return result;
}
