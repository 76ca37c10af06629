/**
 * Sends archives to an intake beside files that no archive may touch, and checks the whole directory
 * afterwards: it holds either the bundle or nothing.
 */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { systemClock } from '../../src/async/clock.js';
import { openIntake, type BundleIntake, type IntakeOptions } from '../../src/bundles/intake.js';
import type { BundleLimits } from '../../src/options/core-options.js';
import type { StagedBundle } from '../../src/bundles/store.js';
import { isReceiverError } from '../../src/errors.js';
import { fileName } from '../../src/paths/index.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';
import { configName, treeOf } from './archives.js';
import { defaultOptions } from '../support/options.js';

const { bundleLimits } = defaultOptions;
export const configurationFilename = fileName(configName);
const pieceBytes = 32_768;

export async function send(intake: BundleIntake, pieces: Iterable<Buffer>): Promise<StagedBundle> {
  for (const piece of pieces) {
    if (!intake.write(piece)) await intake.drain();
  }
  return intake.finish();
}

export async function take(
  uploadsDir: string,
  archive: Buffer,
  options: Partial<IntakeOptions> = {},
): Promise<StagedBundle> {
  const count = Math.ceil(archive.length / pieceBytes);
  const pieces = Array.from({ length: count }, (_, i) =>
    archive.subarray(i * pieceBytes).subarray(0, pieceBytes),
  );
  return send(
    openIntake({ uploadsDir, configurationFilename, bundleLimits, clock: systemClock, ...options }),
    pieces,
  );
}

export interface Place {
  readonly root: string;
  readonly uploadsDir: string;
}

/** The uploads directory is nested, so that a path that leads upwards still ends inside the checked directory. */
export async function place(t: Cleanups): Promise<Place> {
  const root = await tempDir(t);
  const uploadsDir = join(root, 'a', 'b', 'uploads');
  await mkdir(uploadsDir, { recursive: true });
  await writeFile(join(root, 'a', 'neighbour'), 'untouched');
  return { root, uploadsDir };
}

/** Returns the refusal's message, or null when the bundle was accepted, and discards it then. */
export async function refusalOf(
  { root, uploadsDir }: Place,
  archive: Buffer,
  changes: Partial<BundleLimits> = {},
): Promise<string | null> {
  try {
    const staged = await take(uploadsDir, archive, { bundleLimits: { ...bundleLimits, ...changes } });
    const tree = await treeOf(staged.directory);
    assert.ok(![...tree.values()].includes('neither a file nor a directory'));
    await staged.discard();
    return null;
  } catch (error) {
    assert.ok(isReceiverError(error, 'BUNDLE'), String(error));
    assert.ok(!error.message.includes(root), 'the peer learns no path of the host');
    return error.message;
  } finally {
    const left = { 'a/': '', 'a/b/': '', 'a/b/uploads/': '', 'a/neighbour': 'untouched' };
    assert.deepEqual(Object.fromEntries(await treeOf(root)), left, 'nothing is left, and nothing is beside');
  }
}
