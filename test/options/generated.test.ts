/**
 * The files generated from the option declarations are current and describe every option. Covers
 * src/options/core-options.ts and src/options/limits.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as z from 'zod';

import { generatedFiles } from '../../scripts/options/files.js';
import { interfaceText } from '../../scripts/options/types.js';
import { serveOptions } from '../../src/cli/flags.js';
import { announceOptions, mountOptions } from '../../src/koa/options.js';
import type { ReceiverOptions } from '../../src/koa/receiver-options.js';
import type {
  BundleLimits,
  ConnectionLimits,
  CoreOptions,
  RetentionLimits,
} from '../../src/options/core-options.js';
import { coreOptions, type ResolvedOptions } from '../../src/options/core.js';
import {
  bundleLimits,
  connectionLimits,
  mostPackedBytes,
  retentionLimits,
} from '../../src/options/limits.js';
import { factsOf, option } from '../../src/options/schema.js';
import { maxBundleBytes } from '../../src/protocol/transfer.js';
import { readText } from '../house/sources.js';

const all = Object.entries({
  ...{ ...coreOptions, ...mountOptions, ...serveOptions },
  ...{ ...bundleLimits, ...connectionLimits, ...retentionLimits, ...announceOptions },
});

test('docs/OPTIONS.md and the interfaces are up to date with `npm run options`', async () => {
  const files = await generatedFiles();
  assert.equal(files.size, 3);
  for (const [path, text] of files) assert.equal(readText(path), text, `${path}: run npm run options`);
});

test('Every option has a summary, and every number has limits', () => {
  for (const [name, schema] of all) {
    const { info, core, least } = factsOf(schema);
    assert.match(info.summary, /^[A-Z].*\.$/s, name);
    assert.match(info.details ?? 'None.', /\.$/, name);
    if (core instanceof z.ZodNumber) assert.notEqual(least, undefined, name);
  }
});

test('The doc of an interface member contains its summary, its limits and its default', () => {
  const warmthMs = option(z.int().min(1_000).max(60_000).nullable().default(null), { summary: 'How warm.' });
  const mode = option(z.enum(['hot', 'cold']), { summary: 'Which way.' });
  const text = interfaceText('Oven', { warmthMs, mode }, { about: 'An oven.' });
  assert.equal(
    text,
    `/** An oven. */
export interface Oven {
  /** How warm. From 1,000 (1 second) to 60,000 (1 minute). Default: \`null\`. */
  readonly warmthMs?: number | null | undefined;
  /** Which way. Required. */
  readonly mode: 'hot' | 'cold';
}
`,
  );
  const unknown = { odd: z.custom<Date>().optional() };
  assert.throws(() => interfaceText('Odd', unknown, { about: '' }), /the option odd needs a `type`/);
});

test('The maximum bundle size is that of the peer link', () => {
  assert.equal(mostPackedBytes, maxBundleBytes);
});

type Input<S extends z.core.$ZodShape> = z.input<z.ZodObject<S>>;
type Output<S extends z.core.$ZodShape> = z.output<z.ZodObject<S>>;
type MustBe<A extends B, B> = A;

/** A host can set a limit to undefined, although the types do not say so. */
type Group = 'bundleLimits' | 'connectionLimits' | 'retention';

/** Compile-time: the interfaces match the schemas' input and output, in both directions. */
export type Checked = [
  MustBe<CoreOptions, Input<typeof coreOptions>>,
  MustBe<Omit<Input<typeof coreOptions>, Group>, Omit<CoreOptions, Group>>,
  MustBe<Omit<ReceiverOptions, keyof CoreOptions>, Input<typeof mountOptions>>,
  MustBe<Input<typeof mountOptions>, Omit<ReceiverOptions, keyof CoreOptions>>,
  MustBe<BundleLimits, Output<typeof bundleLimits>>,
  MustBe<Output<typeof bundleLimits>, BundleLimits>,
  MustBe<ConnectionLimits, Output<typeof connectionLimits>>,
  MustBe<Output<typeof connectionLimits>, ConnectionLimits>,
  MustBe<RetentionLimits, Output<typeof retentionLimits>>,
  MustBe<Output<typeof retentionLimits>, RetentionLimits>,
  MustBe<keyof CoreOptions, keyof ResolvedOptions>,
];
