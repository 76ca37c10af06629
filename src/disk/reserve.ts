/**
 * Space that is set aside on a volume for removals. Without it, nothing could be removed from a completely full volume,
 * because a lock, a record and a revocation each need a few bytes and a file first. {@link patiently} covers faults that
 * pass within seconds.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync as isThere, readdirSync, rmSync, statfsSync } from 'node:fs';
import { mkdir, readdir, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { isDiskFull, hostFaultOf } from '../errors.js';
import type { Log } from '../log.js';
import { makeDirectory } from './atomic-write.js';
import { removeTree } from './remove.js';

export type Reserve = ReturnType<typeof createReserve>;

/** A piece is enough for one removal: its locks, its records and their directories. */
const pieceBytes = 65_536;
const pieceFiles = 12;
const pieces = 8;
/** The volume must have this much more than the reserve before something is set aside. */
const spareBytes = 4_194_304;
const spareFiles = 1_000;

const reserveName = 'reserve';

/** A reserve below each of these directories, which can be on different volumes. */
export function createReserve(parents: readonly string[], log: Log) {
  const directories = parents.map((parent) => join(parent, reserveName));

  /** False when nothing was left. */
  async function giveUp(): Promise<boolean> {
    let isGiven = false;
    for (const directory of directories) {
      const [piece] = await readdir(directory).catch(() => []);
      if (piece === undefined) continue;
      await removeTree(join(directory, piece));
      isGiven = true;
      log.warn({ directory }, 'volume full, reserve released');
    }
    return isGiven;
  }

  return {
    /** Runs the work. While the volume is too full for it, releases a piece of the reserve and runs it again. */
    async spend<T>(work: () => Promise<T>): Promise<T> {
      for (;;) {
        try {
          return await work();
        } catch (error) {
          if (!isDiskFull(error) || !(await giveUp())) throw error;
        }
      }
    },
    /** Releases what the record, the log and the lock of one job need, if the volume is too full for them. */
    makeRoom(): void {
      for (const directory of directories) {
        for (const piece of isThere(directory) ? readdirSync(directory) : []) {
          if (!isFull(directory)) break;
          rmSync(join(directory, piece), { recursive: true, force: true });
          log.warn({ directory }, 'volume full, reserve released');
        }
      }
    },
    /** Sets released pieces aside again if there is plenty of room. Never rejects. */
    async refill(): Promise<void> {
      for (const directory of directories) {
        await fill(directory).catch((err: unknown) => log.debug({ err, directory }, 'reserve not filled'));
      }
    },
  };
}

function isFull(directory: string): boolean {
  const { bavail, bsize, files, ffree } = statfsSync(directory);
  return bavail * bsize < 2 * pieceBytes || (files > 0 && ffree < 2 * pieceFiles);
}

async function fill(directory: string): Promise<void> {
  await makeDirectory(directory);
  const present = (await readdir(directory)).length;
  for (let count = present; count < pieces; count += 1) {
    const { bavail, bsize, files, ffree } = await statfs(directory);
    // Some file systems do not count files.
    if (bavail * bsize < spareBytes || (files > 0 && ffree < spareFiles)) return;
    await setAside(directory);
  }
}

async function setAside(directory: string): Promise<void> {
  const piece = join(directory, randomUUID());
  try {
    await mkdir(piece, { mode: 0o700 });
    // Random, because a file system can store zeros in no space at all.
    await writeFile(join(piece, 'bytes'), randomBytes(pieceBytes));
    const files = Array.from({ length: pieceFiles - 1 }, (_, n) => writeFile(join(piece, String(n + 1)), ''));
    // All have ended before a piece that is incomplete is removed.
    const failed = (await Promise.allSettled(files)).find((file) => file.status === 'rejected');
    if (failed) throw failed.reason;
  } catch (error) {
    await removeTree(piece);
    throw error;
  }
}

const defaultPausesMs = [250, 500, 1_000, 2_000, 4_000, 8_000];

/**
 * Retries what the host's disk refuses: a volume that is full or read-only for some seconds must cost neither a bundle
 * nor a build of ten minutes. Settles as the last try does: after 16 s, or earlier when the signal aborts or the error is
 * not the host's.
 */
export async function patiently<T>(
  act: () => Promise<T>,
  signal: AbortSignal,
  log: Log,
  pausesMs: readonly number[] = defaultPausesMs,
): Promise<T> {
  for (const pauseMs of pausesMs) {
    try {
      return await act();
    } catch (error) {
      const fault = hostFaultOf(error);
      // A removed file does not come back.
      if (signal.aborted || fault === null || fault.code === 'ENOENT') throw error;
      log.warn({ err: error }, 'disk refused a step of a job, trying again');
      await sleep(pauseMs, undefined, { signal }).catch(() => {});
    }
  }
  return act();
}

/** With fewer free files than this, a volume counts as full. */
const minFreeFiles = 100;

/**
 * The free space of a volume in bytes, without what is reserved for root; 0 when it can hold no more files. Throws system
 * errors.
 */
export async function freeSpaceBytes(directory: string): Promise<number> {
  const { bavail, bsize, files, ffree } = await statfs(directory);
  // Some file systems do not count files.
  return files > 0 && ffree < minFreeFiles ? 0 : bavail * bsize;
}
