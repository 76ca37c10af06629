/**
 * Removes a tree without following a link, and moves it out of sight first where that matters: a build directory
 * half deleted under its old name would pass for a whole one.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { systemCode } from '../errors.js';

/** Removes whatever is at `path`; nothing there is fine. A link is removed itself, never what it names. */
export async function removeTree(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true, maxRetries: 3 });
}

/**
 * Renames `path` into `trashDir` (same file system, made when missing) under a name of its own and returns that,
 * or null when there was nothing.
 */
export async function moveToTrash(path: string, trashDir: string): Promise<string | null> {
  await mkdir(trashDir, { recursive: true, mode: 0o700 });
  const target = join(trashDir, randomUUID());
  try {
    await rename(path, target);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
  return target;
}
