/**
 * Who may use the shared tools of one (platform, framework, version), and how. ESPHome installs them at the first
 * build and has no lock for that: two first builds at once leave a half-installed toolchain which all later
 * builds accept. So a build enters alone until a build has succeeded with these tools, and together with others
 * from then on.
 *
 * A ready mark beside the tools says that they are whole. It is written last, so a holder that dies leaves none,
 * and the next one enters alone again. Tools that are found broken later are renewed alone, too: the mark goes
 * first, then all present users are waited for.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';

import * as z from 'zod';

import { runOnce } from '../async/single-flight.js';
import { readJsonFile, writeJsonFile } from '../disk/json-file.js';
import { ReceiverError } from '../errors.js';
import { acquireAt, usable, type AcquireOptions, type Lease } from '../locks/lease.js';
import { hashName } from '../paths/segments.js';
import { addUser, awaitNoUsers } from '../locks/shared-use.js';
import type { SessionIdentity } from '../process/stop.js';

export interface ToolchainKey {
  readonly platform: string;
  readonly framework: string;
  readonly version: string;
}

export interface GateOptions extends AcquireOptions {
  /** Absolute: where locks are. */
  readonly locksDir: string;
  /** Absolute: where the tools are, so that the mark goes with them when somebody deletes them. */
  readonly toolsDir: string;
  readonly key: ToolchainKey;
  /** The {@link ToolchainGate.stamp} under which the tools were found broken: enter alone unless they are new since. */
  readonly broken?: string | undefined;
}

export interface ToolchainGate {
  /** Names the installation that was found ready; null: alone, with tools that are yet to be installed. */
  readonly stamp: string | null;
  /** Aborts with LOCK_LOST when the holder is not alone any more. */
  readonly signal: AbortSignal;
  /** As that of a {@link Lease}, and for the same moment: a build that a dead holder has left is ended by the next. */
  recordBuild(build: SessionIdentity | null): Promise<void>;
  /** Says that the tools are whole: after a build has succeeded with them. Throws STATE unless alone. */
  markReady(): Promise<void>;
  /** Idempotent, never rejects. */
  leave(): Promise<void>;
}

/** Of the names of the marks, which lie beside the tools. */
export const markPrefix = '.ready-';

const markSchema = z.object({
  stamp: z.string(),
  platform: z.string(),
  framework: z.string(),
  version: z.string(),
});
const markFormat = { maxBytes: 4_096, parse: markSchema.parse };

/** Waits until the tools may be used. Throws CANCELLED, LOCK_TIMEOUT, STORAGE. */
export async function enterToolchain(options: GateOptions): Promise<ToolchainGate> {
  const { locksDir, toolsDir, key, broken, deadlineMs = Infinity } = options;
  const name = hashName('toolchain', key.platform, key.framework, key.version);
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
          const { signal, timing } = options;
          await awaitNoUsers(directory, timing, { until, signal });
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

/** What is ready in a directory at this moment, in no order. Throws system errors. */
export async function readyTools(
  toolsDir: string,
): Promise<{ readonly key: ToolchainKey; readonly stamp: string }[]> {
  return (await marksIn(toolsDir)).map(({ mark }) => mark);
}

/** Has those tools be cold that are ready now: who enters next is alone. For one who takes them away. Throws system errors. */
export async function forgetReady(toolsDir: string, isGone: (key: ToolchainKey) => boolean): Promise<void> {
  for (const { file, mark } of await marksIn(toolsDir)) if (isGone(mark.key)) await rm(file, { force: true });
}

async function marksIn(
  toolsDir: string,
): Promise<
  { readonly file: string; readonly mark: { readonly key: ToolchainKey; readonly stamp: string } }[]
> {
  const files = (await readdir(toolsDir)).filter((name) => name.startsWith(markPrefix));
  const marks = files.map(async (name) => {
    const file = join(toolsDir, name);
    const mark = await readMark(file);
    return mark === null ? [] : [{ file, mark }];
  });
  return (await Promise.all(marks)).flat();
}

/** Null unless the tools are ready before and after we can be seen: who takes the mark away may not have seen us. */
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
        throw new ReceiverError('FENCED', 'the tools of a build are being replaced', { stamp });
    },
    async markReady() {
      throw new ReceiverError('STATE', 'the tools are ready already');
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
      await mkdir(join(mark, '..'), { recursive: true });
      try {
        await lease.publish(() => writeJsonFile(mark, { stamp: randomUUID(), ...key }));
      } catch (error) {
        // A newer holder may be installing: rather no mark than a wrong one.
        await rm(mark, { force: true });
        throw error;
      }
    },
    leave: lease.release,
  };
}

/** Null when the tools are not known to be whole. */
async function readStamp(mark: string): Promise<string | null> {
  return (await readMark(mark))?.stamp ?? null;
}

async function readMark(file: string): Promise<{ key: ToolchainKey; stamp: string } | null> {
  const mark = await readJsonFile(file, markFormat).catch(() => null);
  if (mark === null) return null;
  const { stamp, ...key } = mark;
  return { key, stamp };
}

/**
 * One installer of a platform's tools at a time. The gate of a toolchain (toolchain-gate.ts) knows one framework and one
 * release of ESPHome; those of another lie in the same directories, and two that install there at once leave half of
 * each. Whoever is alone in a gate becomes the installer before it begins, and whoever sets tools aside as well.
 *
 * Gates come first and installers last, and nobody waits for a gate while it is an installer: so no two wait for each
 * other.
 */
export interface InstallerOptions extends AcquireOptions {
  /** Absolute: where locks are. */
  readonly locksDir: string;
  /** Whose tools may be written to. */
  readonly platforms: readonly string[];
}

export type Installer = Pick<Lease, 'signal' | 'recordBuild' | 'release'>;

/** Waits for each platform's turn. Throws CANCELLED, LOCK_TIMEOUT, STORAGE; then it has none. */
export async function becomeInstaller({
  locksDir,
  platforms,
  ...options
}: InstallerOptions): Promise<Installer> {
  const leases: Lease[] = [];
  async function release(): Promise<void> {
    for (const lease of leases.toReversed()) await lease.release();
  }
  try {
    // In one order for all, so that two who want several do not wait for each other.
    for (const platform of new Set(platforms.toSorted())) {
      leases.push(await acquireAt(join(locksDir, hashName('installer', platform)), options));
    }
  } catch (error) {
    await release();
    throw error;
  }
  return {
    signal: AbortSignal.any(leases.map(({ signal }) => signal)),
    async recordBuild(build) {
      for (const lease of leases) await lease.recordBuild(build);
    },
    release,
  };
}
