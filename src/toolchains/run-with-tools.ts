/**
 * Runs a compile with the shared tools of its platform: alone until they are installed, together with others afterwards
 * (gate.ts).
 *
 * Broken tools would fail every build until somebody deletes them by hand. So a compile that reports them sets them
 * aside and runs once more, but not again until a build has succeeded: otherwise a configuration that only looks like
 * broken tools would download gigabytes at every build.
 *
 * A platform that the configuration does not name directly is unknown before the build. Such a build uses all tools
 * alone, and sets none aside.
 */
import { readSidecar } from '../artifacts/build-location.js';
import { patiently } from '../disk/reserve.js';
import type { CompileResult } from '../compile/compile.js';
import { isSuccess } from '../compile/verdict.js';
import { readRegular } from '../disk/open-regular.js';
import { removeTree } from '../disk/remove.js';
import { isReceiverError, ReceiverError } from '../errors.js';
import {
  buildDirectories,
  readTarget,
  platformKey,
  type PlatformKey,
  toolDirectories,
} from '../esphome/platforms.js';
import { isReleaseAtLeast } from '../esphome/version.js';
import type { Log } from '../log.js';
import {
  enter,
  unknown,
  useWithoutGate,
  type Guard,
  type ToolBuild,
  type ToolsDeps,
  asInstaller,
  asUser,
  reportingWait,
} from './access.js';
import type { ToolInstaller } from './directories.js';
import { isSuspect, nameOf, readyTools, trustTools, type ToolchainGate, type ToolchainKey } from './gate.js';

export type Tools = ReturnType<typeof createTools>;

type Run = (guard: Guard) => Promise<CompileResult>;

export function createTools(deps: ToolsDeps) {
  /** What renewals have claimed, see {@link claimsOf}, until a build with it has succeeded. */
  const renewedWithoutSuccess = new Set<string>();
  const { toolchainsDir } = deps.paths.layout;

  return {
    /**
     * Runs a compile when its tools can be used; twice when they must be renewed. Throws what `run` throws, `LOCK_LOST`
     * when another build took over the tools, `CANCELLED` and `STORAGE`.
     */
    async compile(build: ToolBuild, run: Run): Promise<CompileResult> {
      const key = await keyOf(build, deps);
      if (key.platform !== unknown) build.onPlatform(key.platform);
      if (usesNoTools(key)) return withoutGate(build, key, run, deps);
      const claims = claimsOf(build, key);
      let gate = await enter(build, key, deps);
      try {
        const isDoubted = gate.stamp !== null && (await isSuspect(toolchainsDir, key, gate.stamp));
        let result = await runIn(gate, build, run, deps.log);
        const seemsBroken = soundsBroken(result) || (isDoubted && failedWithoutReason(result));
        const isBelieved = !claims.some((claim) => renewedWithoutSuccess.has(claim));
        if (seemsBroken && key.platform !== unknown && isBelieved) {
          for (const claim of claims) renewedWithoutSuccess.add(claim);
          const why = soundsBroken(result) ? 'are broken' : 'were reset before this failure';
          build.output(`The tools of ${key.platform} ${why}; running the build again with new ones.\n`);
          await gate.leave();
          gate = await renew(build, key, gate.stamp, deps);
          result = await runIn(gate, build, run, deps.log);
        }
        if (hasSucceeded(result)) {
          for (const claim of claims) renewedWithoutSuccess.delete(claim);
          if (gate.stamp === null && key.platform !== unknown && (await usedOwnTools(build, key, deps)))
            await markReady(gate, deps.log);
          if (isDoubted) await trust(key, deps);
        }
        return result;
      } finally {
        await gate.leave();
      }
    },
  };
}

/**
 * What a build renews only once: its tools, the directories that they share with tools of any other name, which a
 * configuration can choose freely, and on its own word. A dashboard whose builds succeed and fail in turns would otherwise
 * have everybody's tools fetched again each time.
 */
function claimsOf({ configuration }: ToolBuild, key: ToolchainKey): readonly string[] {
  return [nameOf(key), configuration, ...buildDirectories(platformKey(key.platform), key)];
}

/**
 * Whether a build that succeeded was of the platform that its configuration seemed to be, and used no tools beyond those
 * of its gate. Otherwise the tools of that name need not be there, and two first builds would install them at once.
 */
async function usedOwnTools(
  { configuration, version }: ToolBuild,
  key: ToolchainKey,
  { paths, log }: ToolsDeps,
): Promise<boolean> {
  try {
    const { espPlatform, toolchain } = await readSidecar(paths, configuration);
    const platform = platformKey(espPlatform);
    const used = platform && buildDirectories(platform, { toolchain: toolchain ?? key.toolchain, version });
    const own = buildDirectories(platformKey(key.platform), key);
    if (platform === key.platform && used?.every((directory) => own.includes(directory))) return true;
    log.warn({ platform: key.platform, espPlatform, toolchain }, 'tools not marked as ready');
  } catch (error) {
    log.warn({ err: error, platform: key.platform }, 'tools not marked as ready');
  }
  return false;
}

/**
 * Longer than any real YAML. A bundle can contain one of 500 MB, and scanning that would take this thread half a minute
 * and more memory than it has.
 */
const maxYamlBytes = 262_144;

const unknownTarget = { platform: unknown, framework: '', toolchain: 'default', selection: '' };

async function keyOf({ configuration, version }: ToolBuild, { paths }: ToolsDeps): Promise<ToolchainKey> {
  // Ignores errors: the compile reports a missing file, and a build can have replaced it with anything.
  const file = paths.resolveConfigPath(configuration);
  const text = await readRegular(file, maxYamlBytes).catch(() => '');
  const { platform, ...target } = readTarget(text.toString());
  if (platform === null) return { ...unknownTarget, version };
  return { platform, ...target, version };
}

/** A host build needs only the machine's own compiler; before 2026.10 PlatformIO ran it. */
function usesNoTools({ platform, version }: ToolchainKey): boolean {
  return platform === 'host' && isReleaseAtLeast(version, [2026, 10]);
}

async function withoutGate(
  build: ToolBuild,
  key: ToolchainKey,
  run: Run,
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

/** Runs one compile in the gate. Throws `LOCK_LOST` when another build took over the tools. */
async function runIn(
  gate: ToolchainGate,
  { lease, signal }: ToolBuild,
  run: Run,
  log: Log,
): Promise<CompileResult> {
  const result = await run({
    signal: AbortSignal.any([lease.signal, gate.signal]),
    async recordBuild(session) {
      await lease.recordBuild(session);
      await gate.recordBuild(session).catch(rethrowAsLost);
    },
  });
  // Distinguishes a compiler that failed from one that a successor stopped. Users of ready tools have no successor.
  if (gate.stamp === null) await patiently(() => gate.recordBuild(null), signal, log).catch(rethrowAsLost);
  return result;
}

function rethrowAsLost(error: unknown): never {
  if (!isReceiverError(error, 'FENCED')) throw error;
  throw new ReceiverError('LOCK_LOST', 'another build took over the tools', {}, { cause: error });
}

/** A failure only makes the next build enter alone again, so this build still succeeds. */
async function markReady(gate: ToolchainGate, log: Log): Promise<void> {
  await gate.markReady().catch((error: unknown) => {
    log.warn({ err: error }, 'tools not marked as ready');
  });
}

function hasSucceeded(result: CompileResult): boolean {
  const { cancelled, leaseLost } = result;
  return !cancelled && !leaseLost && isSuccess(result);
}

/** If a host could not be reached, new tools could not be downloaded either. */
function soundsBroken(result: CompileResult): boolean {
  const { brokenTools, downloadFailed } = result.marks;
  return brokenTools && !downloadFailed && endedByItself(result) && !isSuccess(result);
}

/** Whether neither the configuration nor the machine is known to be at fault. */
function failedWithoutReason(result: CompileResult): boolean {
  const { killed, outOfMemory, diskFull, downloadFailed, sourceError } = result.marks;
  const isExplained = killed || outOfMemory || diskFull || downloadFailed || sourceError;
  return result.exitCode === 1 && !isExplained && endedByItself(result);
}

function endedByItself({ cancelled, leaseLost, timedOut, silent }: CompileResult): boolean {
  return !cancelled && !leaseLost && !timedOut && !silent;
}

async function trust(key: ToolchainKey, { paths, log }: ToolsDeps): Promise<void> {
  await trustTools(paths.layout.toolchainsDir, key).catch((error: unknown) => {
    log.warn({ err: error }, 'tools still marked as suspect');
  });
}

/**
 * Reenters alone, with the platform's tools set aside, unless another build renewed them meanwhile. Other platforms
 * share the same directories, so this also waits for the users of those, and their tools are no longer ready
 * afterwards. All concurrent renewals enter the gates in the same order, and hold no gate out of it while they wait.
 */
async function renew(
  build: ToolBuild,
  key: ToolchainKey,
  stamp: string | null,
  deps: ToolsDeps,
): Promise<ToolchainGate> {
  // Tools renewed by another build can be removed before we are registered.
  return (await tryRenew(build, key, stamp, deps)) ?? enter(build, key, deps);
}

async function tryRenew(
  build: ToolBuild,
  key: ToolchainKey,
  stamp: string | null,
  deps: ToolsDeps,
): Promise<ToolchainGate | null> {
  const { toolchainsDir } = deps.paths.layout;
  const directories = buildDirectories(key.platform as PlatformKey, key);
  const affected = new Map([[nameOf(key), { key, stamp }]]);
  for (const ready of await readyTools(toolchainsDir)) {
    const name = nameOf(ready.key);
    if (!affected.has(name) && sharesAny(ready.key, directories)) affected.set(name, ready);
  }
  const gates = new Map<string, ToolchainGate>();
  try {
    return await reportingWait(build, key, async (request) => {
      for (const [name, each] of [...affected].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
        const broken = each.stamp ?? undefined;
        gates.set(name, await deps.enterToolchain({ ...request, key: each.key, broken }));
      }
      const isAlone = [...gates.values()].every((gate) => gate.stamp === null);
      const own = gates.get(nameOf(key)) as ToolchainGate;
      gates.delete(nameOf(key));
      if (own.stamp !== null) return asUser(own, key, request, deps);
      return asInstaller(own, key, request, deps, async (installer) => {
        if (isAlone) await setAside(directories, installer, deps.log);
      });
    });
  } finally {
    for (const gate of gates.values()) await gate.leave();
  }
}

function sharesAny({ platform }: ToolchainKey, directories: readonly string[]): boolean {
  const known = platformKey(platform);
  return known !== null && toolDirectories(known).some((directory) => directories.includes(directory));
}

async function setAside(names: readonly string[], installer: ToolInstaller, log: Log): Promise<void> {
  for (const directory of names) {
    const trashed = await installer.setAside(directory);
    if (trashed === null) continue;
    log.warn({ directory }, 'damaged tools set aside, the next build installs them again');
    await removeTree(trashed).catch((error: unknown) => {
      log.warn({ trashed, err: error }, 'damaged tools not removed');
    });
  }
}
