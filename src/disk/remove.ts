/**
 * Removes trees without following links, and moves them to the trash first where it matters: a half-deleted build
 * directory under its old name would look complete.
 */
import { constants } from 'node:fs';
import { access, chmod, lstat, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { systemCode } from '../errors.js';
import { makeDirectory } from './atomic-write.js';
import { entriesIn, onDisk } from './names.js';
import { temporaryName } from './names.js';

const maxTries = 5;
const pauseMs = 10;
/** A build can nest directories deeper than the longest path; they are moved up before their paths get too long. */
const maxPathBelow = 1_024;

/**
 * Removes whatever is at `path`, if anything. A link is removed itself, never its target. Removes one entry at a time:
 * the platform's recursive removal starts with all entries of a directory at once, and half a million planted files
 * then block this process for half a minute. Throws the signal's reason when aborted.
 */
export async function removeTree(path: string, signal?: AbortSignal): Promise<void> {
  await removeBelow(path, { root: path, moved: 0, signal });
}

interface TreeRemoval {
  readonly root: string;
  readonly signal: AbortSignal | undefined;
  /** How many directories were moved up to the root, to be removed from there. */
  moved: number;
}

async function removeBelow(path: string, removal: TreeRemoval): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    const before = removal.moved;
    try {
      // A link to a directory would be opened as one.
      if (!(await lstat(onDisk(path))).isDirectory()) return await rm(onDisk(path), { force: true });
      await removeEntries(path, removal);
      return await rmdir(onDisk(path));
    } catch (error) {
      const code = systemCode(error);
      if (code === 'ENOENT') return;
      if (code !== 'ENOTEMPTY' || tries === maxTries) throw error;
      // Something deeper was moved here, or a process that is being stopped has written a file.
      if (removal.moved > before) tries = 0;
      else await sleep(tries * pauseMs);
    }
  }
}

async function removeEntries(directory: string, removal: TreeRemoval): Promise<void> {
  await unlockToEmpty(directory);
  for await (const { name, isDirectory } of entriesIn(directory)) {
    removal.signal?.throwIfAborted();
    const path = join(directory, name);
    if (!isDirectory) {
      await rm(onDisk(path), { force: true });
    } else if (path.length > removal.root.length + maxPathBelow) {
      await moveTo(path, join(removal.root, temporaryName()));
      removal.moved += 1;
    } else {
      await removeBelow(path, removal);
    }
  }
}

/** A build can have removed the permission to read its directories. */
async function unlockToEmpty(directory: string): Promise<void> {
  try {
    await access(onDisk(directory), constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    if (systemCode(error) !== 'EACCES') throw error;
    await chmod(onDisk(directory), 0o700);
  }
}

/**
 * Renames `path` into `trashDir` (same file system, created if missing) under a unique name. Returns the new path, or
 * null when `path` did not exist.
 */
export async function moveToTrash(path: string, trashDir: string): Promise<string | null> {
  await makeDirectory(trashDir);
  const target = join(trashDir, temporaryName());
  try {
    await moveTo(path, target);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
  return target;
}

/** Runs an act for the current owner of a directory, and throws when the ownership was lost. A lease is one. */
export interface PublishGuard {
  publish<T>(act: () => Promise<T>): Promise<T>;
}

/** Trees whose deletion failed. The next deletion in this process tries them again. */
const undeleted: string[] = [];

/**
 * Removes in two steps: `move` renames each item out of sight, `empty` deletes the items when no one waits for it. The next
 * start deletes what a crash leaves in between.
 */
export function openTrash(trashDir: string) {
  const moved: string[] = [];
  return {
    /** False when nothing was there. Throws what the guard throws, and system errors. */
    async move(path: string, fence: PublishGuard): Promise<boolean> {
      return fence.publish(async () => {
        const target = await moveToTrash(path, trashDir);
        // Also if the guard then finds that the ownership is lost.
        if (target !== null) moved.push(target);
        return target !== null;
      });
    },
    /** Deletes what was moved; ends early when the signal aborts. Throws system errors. */
    async empty(signal?: AbortSignal): Promise<void> {
      const earlier = undeleted.splice(0);
      const failures = await deleteAll(moved.splice(0), signal);
      await deleteAll(earlier, signal);
      if (failures.length > 0 && signal?.aborted !== true) throw failures[0];
    },
  };
}

async function deleteAll(paths: readonly string[], signal: AbortSignal | undefined): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (const path of paths) {
    if (signal?.aborted === true) break;
    try {
      await removeTree(path, signal);
    } catch (error) {
      failures.push(error);
      undeleted.push(path);
    }
  }
  return failures;
}

/** An unwritable directory cannot be moved to another parent, so it is made writable first. */
async function moveTo(path: string, target: string): Promise<void> {
  try {
    await rename(onDisk(path), target);
  } catch (error) {
    if (systemCode(error) !== 'EACCES' || !(await lstat(onDisk(path))).isDirectory()) throw error;
    await chmod(onDisk(path), 0o700);
    await rename(onDisk(path), target);
  }
}
