/** A file system of a few megabytes that a test can fill. It needs the right to mount one; without it the test is skipped. */
import { execFileSync } from 'node:child_process';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

import { systemCode } from '../../src/errors.js';
import { tempDir } from './temp-dir.js';

export interface VolumeSize {
  readonly megabytes: number;
  /** How many files it can hold; by default as many as fit. */
  readonly files?: number;
}

/** The path of a fresh volume, which the end of the test unmounts; null when the test was skipped. */
export async function smallVolume(t: TestContext, { megabytes, files }: VolumeSize): Promise<string | null> {
  let isMounted = false;
  let place = '';
  const base = await tempDir({
    after: (remove) =>
      t.after(async () => {
        if (isMounted) execFileSync('umount', ['--lazy', place]);
        await remove();
      }),
  });
  place = join(base, 'volume');
  await mkdir(place);
  const size = [`size=${megabytes}m`, ...(files === undefined ? [] : [`nr_inodes=${files}`])];
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', size.join(), 'tmpfs', place], { stdio: 'pipe' });
  } catch {
    t.skip('no right to mount a file system');
    return null;
  }
  isMounted = true;
  return place;
}

/** Makes the volume read-only, or writable again. */
export function remount(place: string, mode: 'ro' | 'rw'): void {
  execFileSync('mount', ['-o', `remount,${mode}`, place], { stdio: 'pipe' });
}

/** Leaves not one free byte. The filler lies below `filler` in the volume. */
export async function fillVolume(place: string): Promise<void> {
  await mkdir(join(place, 'filler'), { recursive: true });
  for (const size of [1_048_576, 4_096, 1]) {
    const file = await open(join(place, 'filler', `bytes-${size}`), 'a').catch(nullIfFull);
    if (file === null) return;
    try {
      for (;;) if ((await file.write(Buffer.alloc(size, 1)).catch(nullIfFull)) === null) break;
    } finally {
      await file.close();
    }
  }
}

/** Leaves room for not one more file. */
export async function fillFiles(place: string): Promise<void> {
  await mkdir(join(place, 'filler'), { recursive: true });
  for (let n = 0; ; n += 1) {
    const written = await writeFile(join(place, 'filler', `file-${n}`), '').then(() => true, nullIfFull);
    if (written === null) return;
  }
}

function nullIfFull(error: unknown): null {
  if (systemCode(error) === 'ENOSPC') return null;
  throw error;
}
