/**
 * Lets a compile use the shared tools of its platform: alone while they are yet to be installed, together with
 * others afterwards (locks/toolchain-gate.ts). Always entered under the device's lease, never the other way round.
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
import { isReceiverError, messageOf, ReceiverError } from '../errors.js';
import { readTarget } from '../esphome/tools.js';
import { isReleaseAtLeast } from '../esphome/version.js';
import type { Gate, ToolchainKey } from '../locks/toolchain-gate.js';
import type { Log } from '../log.js';
import {
  enter,
  nameOf,
  unknown,
  useWithoutGate,
  type Guard,
  type ToolBuild,
  type ToolsDeps,
} from './tool-gates.js';
import { renew } from './tool-renewal.js';

export type { Guard, ToolBuild, ToolsDeps } from './tool-gates.js';

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
