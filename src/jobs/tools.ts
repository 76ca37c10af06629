/**
 * Lets a compile use the shared tools of its platform: alone while they are yet to be installed, together with
 * others afterwards (locks/toolchain-gate.ts). Always entered under the device's lease, never the other way round.
 *
 * Tools that are broken would fail every build until somebody deletes them by hand. A compile that says so has them
 * set aside and is run once more; not again before a build has succeeded, or a configuration that only sounds like
 * broken tools would have gigabytes fetched at every build.
 *
 * A platform that the configuration does not name itself is not known before the build. Such builds run one at a
 * time, are not kept from first builds of known platforms, and have no tools set aside.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { CompileResult } from '../compile/compile.js';
import { isSuccess } from '../compile/verdict.js';
import { moveToTrash, removeTree } from '../disk/remove.js';
import { isReceiverError, messageOf, ReceiverError } from '../errors.js';
import { platformKey, type PlatformKey } from '../esphome/platforms.js';
import { readTarget, toolDirectories } from '../esphome/tools.js';
import type { Lease } from '../locks/lease.js';
import { readyTools, type Gate, type GateOptions, type ToolchainKey } from '../locks/toolchain-gate.js';
import type { Log } from '../log.js';
import type { Paths } from '../paths/index.js';
import type { Waiting } from './waiting.js';

export interface ToolsDeps {
  readonly paths: Pick<Paths, 'layout' | 'resolveConfigPath'>;
  /** Rejects as the toolchain gate does. */
  readonly enterToolchain: (
    wish: Pick<GateOptions, 'key' | 'broken' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<Gate>;
  readonly log: Log;
}

export interface ToolBuild {
  readonly id: string;
  readonly configuration: string;
  /** Of the ESPHome that builds. */
  readonly version: string;
  /** Of the device's directory. */
  readonly lease: Guard;
  readonly signal: AbortSignal;
  /** Takes a line for the job's log. */
  output(line: string): void;
  /** Called with what the build waits for, and with null when it goes on. */
  onWaiting(waiting: Waiting | null): void;
}

/** What a compile runs under. */
export type Guard = Pick<Lease, 'signal' | 'recordBuild'>;

export interface Tools {
  /**
   * Runs a compile when its tools may be used; twice when they have to be renewed. Throws what `run` throws,
   * `LOCK_LOST` when the tools have been taken over, `CANCELLED` and `STORAGE`.
   */
  compile(build: ToolBuild, run: (guard: Guard) => Promise<CompileResult>): Promise<CompileResult>;
}

const unknown = 'unknown';

export function createTools(deps: ToolsDeps): Tools {
  const renewedInVain = new Set<string>();

  return {
    async compile(build, run) {
      const key = await keyOf(build, deps.paths);
      if (key.platform === 'host') return run(build.lease);
      const name = nameOf(key);
      let gate = await enter(build, key, undefined, deps);
      try {
        let result = await runIn(gate, build, run);
        if (soundsBroken(result) && key.platform !== unknown && !renewedInVain.has(name)) {
          renewedInVain.add(name);
          build.output(
            `The tools of ${key.platform} are broken; the build is run once more with new ones.\n`,
          );
          await gate.leave();
          gate = await renew(build, key, gate.stamp, deps);
          result = await runIn(gate, build, run);
        }
        if (hasSucceeded(result)) {
          renewedInVain.delete(name);
          if (gate.stamp === null && key.platform !== unknown) await markReady(gate, deps.log);
        }
        return result;
      } finally {
        await gate.leave();
      }
    },
  };
}

async function keyOf(
  { configuration, version }: ToolBuild,
  paths: ToolsDeps['paths'],
): Promise<ToolchainKey> {
  // Without a file the compile says what is wrong.
  const text = await readFile(paths.resolveConfigPath(configuration), 'utf8').catch(() => '');
  const { platform, framework } = readTarget(text);
  return { platform: platform ?? unknown, framework, version };
}

function nameOf({ platform, framework, version }: ToolchainKey): string {
  return JSON.stringify([platform, framework, version]);
}

async function enter(
  { id, lease, signal, output, onWaiting }: ToolBuild,
  key: ToolchainKey,
  broken: string | undefined,
  { enterToolchain }: ToolsDeps,
): Promise<Gate> {
  let isTold = false;
  const gate = await enterToolchain({
    key,
    broken,
    reason: `compile ${id}`,
    signal: AbortSignal.any([signal, lease.signal]),
    onBlocked() {
      if (!isTold)
        output(`Waiting until the tools of ${platformText(key)} are installed by another build.\n`);
      isTold = true;
      onWaiting({ for: 'toolchain', platform: key.platform });
    },
  });
  if (isTold) onWaiting(null);
  return gate;
}

function platformText({ platform }: ToolchainKey): string {
  return platform === unknown ? 'an unknown platform' : platform;
}

/** One compile in the gate. Throws `LOCK_LOST` when somebody else has taken the tools over. */
async function runIn(
  gate: Gate,
  { lease }: ToolBuild,
  run: (guard: Guard) => Promise<CompileResult>,
): Promise<CompileResult> {
  const result = await run({
    signal: AbortSignal.any([lease.signal, gate.signal]),
    async recordBuild(session) {
      await lease.recordBuild(session);
      await gate.recordBuild(session).catch(rethrowAsLost);
    },
  });
  // Tells a compiler that failed from one that a successor has ended. Who shares ready tools has no successor.
  if (gate.stamp === null) await gate.recordBuild(null).catch(rethrowAsLost);
  return result;
}

function rethrowAsLost(error: unknown): never {
  if (!isReceiverError(error, 'FENCED')) throw error;
  throw new ReceiverError('LOCK_LOST', 'another build has taken over the tools', {}, { cause: error });
}

/**
 * Comes back alone, with the platform's tools set aside, unless somebody has renewed them meanwhile. Other platforms
 * lie in the same directories, so whoever is ready with those is waited for, too, and is cold afterwards. The order
 * is the same for all who do this at once, and nobody who waits here holds a gate out of it.
 */
async function renew(
  build: ToolBuild,
  key: ToolchainKey,
  stamp: string | null,
  deps: ToolsDeps,
): Promise<Gate> {
  const { toolchainsDir } = deps.paths.layout;
  const directories = toolDirectories(key.platform as PlatformKey);
  const affected = new Map([[nameOf(key), { key, stamp }]]);
  for (const ready of await readyTools(toolchainsDir)) {
    const name = nameOf(ready.key);
    if (!affected.has(name) && sharesAny(ready.key, directories)) affected.set(name, ready);
  }
  const gates = new Map<string, Gate>();
  try {
    for (const [name, each] of [...affected].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
      gates.set(name, await enter(build, each.key, each.stamp ?? undefined, deps));
    }
    if ([...gates.values()].every((gate) => gate.stamp === null)) await setAside(directories, deps);
    const own = gates.get(nameOf(key)) as Gate;
    gates.delete(nameOf(key));
    return own;
  } finally {
    for (const gate of gates.values()) await gate.leave();
  }
}

function sharesAny({ platform }: ToolchainKey, directories: readonly string[]): boolean {
  const known = platformKey(platform);
  return known !== null && toolDirectories(known).some((directory) => directories.includes(directory));
}

async function setAside(directories: readonly string[], { paths, log }: ToolsDeps): Promise<void> {
  const { toolchainsDir, trashDir } = paths.layout;
  for (const directory of directories) {
    const trashed = await moveToTrash(join(toolchainsDir, directory), trashDir);
    if (trashed === null) continue;
    log.warn({ directory }, 'broken tools are set aside and will be installed again');
    await removeTree(trashed).catch((error: unknown) => {
      log.warn({ trashed, error: messageOf(error) }, 'broken tools could not be removed');
    });
  }
}

/** The build is right also when the next one has to be alone again. */
async function markReady(gate: Gate, log: Log): Promise<void> {
  await gate.markReady().catch((error: unknown) => {
    log.warn({ error: messageOf(error) }, 'tools could not be marked as ready');
  });
}

function hasSucceeded(result: CompileResult): boolean {
  const { cancelled, leaseLost } = result;
  return !cancelled && !leaseLost && isSuccess(result);
}

function soundsBroken(result: CompileResult): boolean {
  const { cancelled, leaseLost, timedOut, silent, marks } = result;
  const isStopped = cancelled || leaseLost || timedOut || silent;
  return marks.brokenTools && !isStopped && !isSuccess(result);
}
