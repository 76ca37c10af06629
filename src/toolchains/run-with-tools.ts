/**
 * Lets a compile use the shared tools of its platform: alone while they are yet to be installed, together with
 * others afterwards (toolchains/gate.ts). Always entered under the device's lease, never the other way round.
 *
 * Tools that are broken would fail every build until somebody deletes them by hand. A compile that says so has them
 * set aside and is run once more; not again before a build has succeeded, or a configuration that only sounds like
 * broken tools would have gigabytes fetched at every build.
 *
 * A platform that the configuration does not name itself is not known before the build. Such builds run one at a
 * time and not beside a first build of any platform, and have no tools set aside.
 */
import type { CompileResult } from '../compile/compile.js';
import { isSuccess } from '../compile/verdict.js';
import { readRegular } from '../disk/open-regular.js';
import { removeTree } from '../disk/remove.js';
import { isReceiverError, ReceiverError } from '../errors.js';
import { readTarget, platformKey, type PlatformKey, toolDirectories } from '../esphome/platforms.js';
import { isReleaseAtLeast } from '../esphome/version.js';
import type { Log } from '../log.js';
import {
  enter,
  nameOf,
  unknown,
  useWithoutGate,
  type Guard,
  type ToolBuild,
  type ToolsDeps,
  asInstaller,
  asUser,
  telling,
  type ToolRequest,
} from './access.js';
import { type ToolchainGate, type ToolchainKey, readyTools } from './gate.js';

export type { Guard, ToolBuild, ToolsDeps } from './access.js';

export interface Tools {
  /**
   * Runs a compile when its tools may be used; twice when they have to be renewed. Throws what `run` throws,
   * `LOCK_LOST` when the tools have been taken over, `CANCELLED` and `STORAGE`.
   */
  compile(build: ToolBuild, run: (guard: Guard) => Promise<CompileResult>): Promise<CompileResult>;
}

export function createTools(deps: ToolsDeps): Tools {
  const renewedInVain = new Set<string>();

  return {
    async compile(build, run) {
      const key = await keyOf(build, deps.paths);
      if (usesNoTools(key)) return withoutGate(build, key, run, deps);
      const name = nameOf(key);
      let gate = await enter(build, key, deps);
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

/**
 * Longer than anybody's YAML. A bundle may hold one of 500 MB, and to look through that takes this thread half a minute and
 * more memory than it has.
 */
const maxYamlBytes = 262_144;

async function keyOf(
  { configuration, version }: ToolBuild,
  paths: ToolsDeps['paths'],
): Promise<ToolchainKey> {
  // Without a file the compile says what is wrong; a build may have put something else in its place.
  const file = paths.resolveConfigPath(configuration);
  const text = await readRegular(file, maxYamlBytes).catch(() => '');
  const { platform, framework } = readTarget(text.toString());
  return { platform: platform ?? unknown, framework, version };
}

/** A host build needs the machine's own compiler and nothing else; before 2026.10 PlatformIO ran it. */
function usesNoTools({ platform, version }: ToolchainKey): boolean {
  return platform === 'host' && isReleaseAtLeast(version, [2026, 10]);
}

async function withoutGate(
  build: ToolBuild,
  key: ToolchainKey,
  run: (guard: Guard) => Promise<CompileResult>,
  deps: ToolsDeps,
): Promise<CompileResult> {
  const { lease } = build;
  const use = await useWithoutGate(build, key, deps);
  try {
    return await run({
      signal: lease.signal,
      async recordBuild(session) {
        await lease.recordBuild(session);
        await use.recordBuild(session);
      },
    });
  } finally {
    await use.leave();
  }
}

/** One compile in the gate. Throws `LOCK_LOST` when somebody else has taken the tools over. */
async function runIn(
  gate: ToolchainGate,
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

/** The build is right also when the next one has to be alone again. */
async function markReady(gate: ToolchainGate, log: Log): Promise<void> {
  await gate.markReady().catch((error: unknown) => {
    log.warn({ err: error }, 'tools not marked as ready');
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

/**
 * The way of a build whose tools are broken: it comes back to them alone, has them set aside and installs them anew. All
 * who use what lies in the same directories are waited for.
 */

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
): Promise<ToolchainGate> {
  // Those that somebody has renewed can be taken away before we are seen.
  return (await tryRenew(build, key, stamp, deps)) ?? enter(build, key, deps);
}

async function tryRenew(
  build: ToolBuild,
  key: ToolchainKey,
  stamp: string | null,
  deps: ToolsDeps,
): Promise<ToolchainGate | null> {
  const { toolchainsDir } = deps.paths.layout;
  const directories = toolDirectories(key.platform as PlatformKey);
  const affected = new Map([[nameOf(key), { key, stamp }]]);
  for (const ready of await readyTools(toolchainsDir)) {
    const name = nameOf(ready.key);
    if (!affected.has(name) && sharesAny(ready.key, directories)) affected.set(name, ready);
  }
  const gates = new Map<string, ToolchainGate>();
  try {
    return await telling(build, key, async (wish) => {
      for (const [name, each] of [...affected].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
        const broken = each.stamp ?? undefined;
        gates.set(name, await deps.enterToolchain({ ...wish, key: each.key, broken }));
      }
      const isAlone = [...gates.values()].every((gate) => gate.stamp === null);
      let own = gates.get(nameOf(key)) as ToolchainGate;
      if (own.stamp === null) {
        const platforms = [...affected.values()].map((each) => each.key.platform);
        own = await asInstaller(own, platforms, wish, deps);
        gates.set(nameOf(key), own);
      }
      if (isAlone) await setAside(directories, wish, deps);
      gates.delete(nameOf(key));
      return asUser(own, key, wish, deps);
    });
  } finally {
    for (const gate of gates.values()) await gate.leave();
  }
}

function sharesAny({ platform }: ToolchainKey, directories: readonly string[]): boolean {
  const known = platformKey(platform);
  return known !== null && toolDirectories(known).some((directory) => directories.includes(directory));
}

/** Also waits for a first build of another platform, which is in none of these gates. */
async function setAside(
  names: readonly string[],
  wish: ToolRequest,
  { directories, log }: ToolsDeps,
): Promise<void> {
  for (const directory of names) {
    const trashed = await directories.setAside(directory, wish);
    if (trashed === null) continue;
    log.warn({ directory }, 'damaged tools set aside, the next build installs them again');
    await removeTree(trashed).catch((error: unknown) => {
      log.warn({ trashed, err: error }, 'damaged tools not removed');
    });
  }
}
