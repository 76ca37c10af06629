/**
 * Records who holds a lock, and which build runs under it: one small file per owner, beside the lock directory (a file
 * inside it would block its removal) and named by the owner's fence number, so that a late writer can only overwrite
 * its own.
 *
 * A lock can change owners while the old owner's build still runs, because the owner was killed or suspended. The
 * successor takes its number first, then reads the older records, ends the builds they name, and only then enters. An
 * owner records its build before the build begins, and then checks that its number is still the newest. Whichever of
 * the two is late sees the other, so no build is missed. Synchronous calls take microseconds on a directory just read.
 */
import { randomUUID } from 'node:crypto';
import { readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import * as z from 'zod';

import { nullUnlessRecord, readJsonFileSync } from '../disk/json-file.js';
import { ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { isOfThisBoot, type ProcessIdentity } from '../process/identity.js';
import { type SessionIdentity, endSession } from '../process/stop.js';
import { cancelled } from './fifo.js';

export interface OwnerRecord {
  readonly fence: number;
  /** Zeros where there is no /proc. A successor ends only the build, never the owner. */
  readonly owner: ProcessIdentity;
  readonly build: SessionIdentity | null;
  /** Shown to waiters. */
  readonly reason: string;
  /** When the lock was taken, in ms since 1970. */
  readonly since: number;
}

export interface EndOptions {
  readonly signal?: AbortSignal | undefined;
  /** A time of `performance.now()`. */
  readonly until: number;
  /** How long to wait for the build of an owner whose process is not visible. */
  readonly foreignMs: number;
  readonly log: Log;
}

const pattern = /^owner-(\d{1,15})\.json/;
const pauseMs = 100;

const identity = z.object({ pid: z.int().positive(), startTime: z.number(), bootId: z.string() });
/** The first process of a machine is never a build. */
const session = identity.extend({ pid: z.int().min(2), marker: z.string() });
const schema = z.object({
  fence: z.number(),
  owner: identity,
  build: session.nullable(),
  reason: z.string(),
  since: z.number(),
});
const format = { maxBytes: 65_536, parse: schema.parse };

/** The format of the user files in shared-use.ts. */
export const userFormat = { maxBytes: 4_096, parse: schema.pick({ owner: true, build: true }).parse };

/** Writes or replaces the record of `record.fence`. A reader sees the old or the new. Throws system errors. */
export function writeRecord(directory: string, record: OwnerRecord): void {
  const file = fileOf(directory, record.fence);
  const temporary = `${file}.${randomUUID()}`;
  writeFileSync(temporary, JSON.stringify(record), { mode: 0o600 });
  // Not synced: after a power cut no process of this boot is left to end.
  renameSync(temporary, file);
}

export function removeRecord(directory: string, fence: number): void {
  rmSync(fileOf(directory, fence), { force: true });
}

/** The record of the newest owner, if any. */
export function readHolder(directory: string): OwnerRecord | null {
  const newest = Math.max(0, ...recordsIn(directory).map(({ fence }) => fence));
  return newest === 0 ? null : readRecord(fileOf(directory, newest));
}

/**
 * Ends every build that an owner older than `fence` left running, and removes its record. Signals only processes whose
 * identity matches. Throws CANCELLED, and LOCK_TIMEOUT when a build cannot be ended in time; its record then stays for
 * the next owner.
 */
export async function endPredecessors(directory: string, fence: number, options: EndOptions): Promise<void> {
  for (const { name, fence: older } of recordsIn(directory)) {
    if (older >= fence) continue;
    const file = join(directory, name);
    const record = readRecord(file);
    if (record?.build) await endBuild(file, record.build, options);
    rmSync(file, { force: true });
  }
}

async function endBuild(file: string, build: SessionIdentity, options: EndOptions): Promise<void> {
  const { signal, until, foreignMs, log } = options;
  const foreignUntil = performance.now() + foreignMs;
  for (let warned = false; ; warned = true) {
    if (isOfThisBoot(build)) {
      const { forced, survivors } = await endSession(build);
      if (forced)
        log.warn({ pid: build.pid, survivors }, 'ended a build that its dead owner had left running');
      if (survivors === 0) return;
    } else {
      // Another boot, machine or container. An owner that still runs there notices its loss at its next heartbeat,
      // ends its build and removes the record.
      if (!warned) log.info({ build }, 'waiting for a build in another container to end');
      if (performance.now() > foreignUntil || readRecord(file) === null) return;
    }
    if (signal?.aborted) throw cancelled();
    if (performance.now() > until)
      throw new ReceiverError('LOCK_TIMEOUT', 'a build of an earlier owner cannot be ended', { build });
    await sleep(pauseMs);
  }
}

function fileOf(directory: string, fence: number): string {
  return join(directory, `owner-${fence}.json`);
}

/** Records, including half-written ones, with their numbers. */
function recordsIn(directory: string): readonly { readonly name: string; readonly fence: number }[] {
  return readdirSync(directory).flatMap((name) => {
    const found = pattern.exec(name);
    return found ? [{ name, fence: Number(found[1]) }] : [];
  });
}

/** Null for a missing record and for one damaged by a power cut, after which no build is left to end. */
function readRecord(file: string): OwnerRecord | null {
  try {
    return readJsonFileSync(file, format);
  } catch (error) {
    return nullUnlessRecord(error);
  }
}
