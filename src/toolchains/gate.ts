/**
 * Controls access to shared tools. ESPHome installs them during the first build without a lock: two concurrent first
 * builds leave a half-installed toolchain that all later builds accept. So builds enter alone until one has succeeded
 * with these tools, and together afterwards.
 *
 * A ready mark beside the tools says that they are complete. It is written last, so a holder that dies leaves none, and
 * the next one enters alone again. Broken tools are also renewed alone: the mark is removed first, then the renewal waits
 * for all current users.
 */
import { randomUUID } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import * as z from 'zod';

import { runOnce } from '../async/calls.js';
import { readJsonFile, writeJsonFile } from '../disk/json-file.js';
import { namesIn } from '../disk/names.js';
import { ReceiverError } from '../errors.js';
import { acquireAt, usable, type AcquireOptions, type Lease } from '../locks/lease.js';
import { hashName } from '../paths/segments.js';
import { addUser, awaitNoUsers } from '../locks/shared-use.js';
import type { SessionIdentity } from '../process/stop.js';

/** Builds with equal keys use the same tools. */
export interface ToolchainKey {
  readonly platform: string;
  readonly framework: string;
  /** See `BuildTarget` in esphome/platforms.ts. */
  readonly toolchain: string;
  readonly selection: string;
  /** Of ESPHome. */
  readonly version: string;
}

export interface GateOptions extends AcquireOptions {
  readonly locksDir: string;
  /** Absolute. Holds the tools and the mark, so that both are deleted together. */
  readonly toolsDir: string;
  readonly key: ToolchainKey;
  /** The {@link ToolchainGate.stamp} of tools found broken: enter alone unless they were renewed since. */
  readonly broken?: string | undefined;
}

export interface ToolchainGate {
  /** Identifies the ready installation; null when alone, with tools yet to be installed. */
  readonly stamp: string | null;
  /** Aborts with LOCK_LOST when the holder is no longer alone. */
  readonly signal: AbortSignal;
  /** Call it as that of a {@link Lease}: the next holder ends a build that a dead one left. */
  recordBuild(build: SessionIdentity | null): Promise<void>;
  /** Call after a successful build: marks the tools as complete. Throws STATE unless alone. */
  markReady(): Promise<void>;
  /** Idempotent, never rejects. */
  leave(): Promise<void>;
}

interface ReadyTools {
  readonly key: ToolchainKey;
  readonly stamp: string;
}

export const markPrefix = '.ready-';

const markSchema = z.object({
  stamp: z.string(),
  platform: z.string(),
  framework: z.string(),
  toolchain: z.string(),
  selection: z.string(),
  version: z.string(),
});
const markFormat = { maxBytes: 4_096, parse: markSchema.parse };

/** Waits until the tools can be used. Throws CANCELLED, LOCK_TIMEOUT, STORAGE. */
export async function enterToolchain(options: GateOptions): Promise<ToolchainGate> {
  const { locksDir, toolsDir, key, broken, deadlineMs = Infinity } = options;
  const name = hashName('toolchain', nameOf(key));
  const directory = join(locksDir, name);
  const mark = join(toolsDir, markPrefix + name);
  const until = performance.now() + deadlineMs;
  const isReady = (stamp: string | null): stamp is string => stamp !== null && stamp !== broken;
  return usable(directory, async () => {
    for (;;) {
      const together = await enterTogether(directory, mark, isReady, options);
      if (together) return together;
      const lease = await acquireAt(directory, { ...options, deadlineMs: until - performance.now() });
      try {
        if (!isReady(await readStamp(mark))) {
          await rm(mark, { force: true });
          await awaitNoUsers(directory, options.timing, { ...options, until });
          return alone(lease, mark, key);
        }
      } catch (error) {
        await lease.release();
        throw error;
      }
      await lease.release();
    }
  });
}

/** Equal for equal tools. */
export function nameOf({ platform, framework, toolchain, selection, version }: ToolchainKey): string {
  return JSON.stringify([platform, framework, toolchain, selection, version]);
}

/** The tools that are ready now, in no order. Throws system errors. */
export async function readyTools(toolsDir: string): Promise<ReadyTools[]> {
  return (await marksIn(toolsDir)).map(({ mark }) => mark);
}

/** Removes the ready marks of removed tools, so that the next build enters alone. Throws system errors. */
export async function forgetReady(toolsDir: string, isGone: (key: ToolchainKey) => boolean): Promise<void> {
  for (const { file, mark } of await marksIn(toolsDir)) if (isGone(mark.key)) await rm(file, { force: true });
}

/**
 * Marks ready tools as suspect: a build that fails with them renews them even if it does not report them as broken. New
 * tools or a successful build end the suspicion. Throws system errors.
 */
export async function suspectTools(toolsDir: string, isMeant: (key: ToolchainKey) => boolean): Promise<void> {
  for (const { key, stamp } of await readyTools(toolsDir))
    if (isMeant(key)) await writeJsonFile(suspicionOf(toolsDir, key), { stamp });
}

/** Whether the tools with this {@link ToolchainGate.stamp} are suspect. Never rejects. */
export async function isSuspect(toolsDir: string, key: ToolchainKey, stamp: string | null): Promise<boolean> {
  const suspicion = await readJsonFile(suspicionOf(toolsDir, key), suspicionFormat).catch(() => null);
  return suspicion !== null && suspicion.stamp === stamp;
}

/** Ends the suspicion. Throws system errors. */
export function trustTools(toolsDir: string, key: ToolchainKey): Promise<void> {
  return rm(suspicionOf(toolsDir, key), { force: true });
}

const suspicionFormat = { maxBytes: 4_096, parse: z.object({ stamp: z.string() }).parse };

function suspicionOf(toolsDir: string, key: ToolchainKey): string {
  return join(toolsDir, `.suspect-${hashName('toolchain', nameOf(key))}`);
}

async function marksIn(toolsDir: string): Promise<{ readonly file: string; readonly mark: ReadyTools }[]> {
  const files = (await namesIn(toolsDir)).filter((name) => name.startsWith(markPrefix));
  const marks = files.map(async (name) => {
    const file = join(toolsDir, name);
    const mark = await readMark(file);
    return mark === null ? [] : [{ file, mark }];
  });
  return (await Promise.all(marks)).flat();
}

/** Null unless the tools are ready before and after we register: a remover of the mark can have missed us. */
async function enterTogether(
  directory: string,
  mark: string,
  isReady: (stamp: string | null) => stamp is string,
  { log, timing }: GateOptions,
): Promise<ToolchainGate | null> {
  if (!isReady(await readStamp(mark))) return null;
  const user = await addUser(directory, timing);
  const stamp = await readStamp(mark);
  if (!isReady(stamp)) {
    await user.leave();
    return null;
  }
  return {
    stamp,
    signal: new AbortController().signal,
    async recordBuild(build) {
      await user.recordBuild(build);
      if ((await readStamp(mark)) !== stamp)
        throw new ReceiverError('FENCED', 'the tools of this build are being replaced', { stamp });
    },
    async markReady() {
      throw new ReceiverError('STATE', 'the tools are already marked as ready');
    },
    leave: runOnce(() =>
      user
        .leave()
        .catch((error: unknown) => log.warn({ err: error, directory }, 'tool use marker not removed')),
    ),
  };
}

function alone(lease: Lease, mark: string, key: ToolchainKey): ToolchainGate {
  return {
    stamp: null,
    signal: lease.signal,
    recordBuild: lease.recordBuild,
    async markReady() {
      try {
        await lease.publish(() => writeJsonFile(mark, { stamp: randomUUID(), ...key }));
      } catch (error) {
        // A newer holder can be installing: no mark is better than a wrong one.
        await rm(mark, { force: true });
        throw error;
      }
    },
    leave: lease.release,
  };
}

async function readStamp(mark: string): Promise<string | null> {
  return (await readMark(mark))?.stamp ?? null;
}

async function readMark(file: string): Promise<ReadyTools | null> {
  const mark = await readJsonFile(file, markFormat).catch(() => null);
  if (mark === null) return null;
  const { stamp, ...key } = mark;
  return { key, stamp };
}
