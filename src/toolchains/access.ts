/**
 * How a build enters the gate of its shared tools (gate.ts): always under the device's lease, never the other way round.
 * A build in a gate has also registered the directories it uses, so that they are not removed (directories.ts). A build
 * that is alone in a gate can install tools, so it is the only user of those directories.
 */
import type { BuildPaths } from '../artifacts/build-location.js';
import { isReceiverError } from '../errors.js';
import { buildDirectories, platformKey, cacheNames } from '../esphome/platforms.js';
import type { Lease } from '../locks/lease.js';
import type { ToolUser } from '../locks/shared-use.js';
import type { Log } from '../log.js';
import type { Paths } from '../paths/index.js';
import type { ToolDirectories, ToolInstaller } from './directories.js';
import type { ToolchainGate, GateOptions, ToolchainKey } from './gate.js';

/** The platform of a configuration that does not name one. */
export const unknown = 'unknown';

export interface ToolsDeps {
  readonly paths: BuildPaths & Pick<Paths, 'layout' | 'resolveConfigPath'>;
  /** Rejects as the function in gate.ts does. */
  readonly enterToolchain: (
    request: Pick<GateOptions, 'key' | 'broken' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<ToolchainGate>;
  readonly directories: Pick<ToolDirectories, 'use' | 'useAlone'>;
  readonly log: Log;
}

export interface ToolWait {
  readonly for: 'toolchain';
  readonly platform: string;
}

export interface ToolBuild {
  readonly id: string;
  readonly configuration: string;
  readonly version: string;
  readonly lease: Guard;
  readonly signal: AbortSignal;
  output(line: string): void;
  /** Called when the build starts to wait, and with null when it continues. */
  onWaiting(waiting: ToolWait | null): void;
  /** Called with the platform if the configuration names one. */
  onPlatform(platform: string): void;
}

export type Guard = Pick<Lease, 'signal' | 'recordBuild'>;

/** Waits until a build can use its tools. Throws CANCELLED, STORAGE. */
export async function enter(build: ToolBuild, key: ToolchainKey, deps: ToolsDeps): Promise<ToolchainGate> {
  return reportingWait(build, key, async (request) => {
    for (;;) {
      const gate = await deps.enterToolchain({ ...request, key });
      const extend = gate.stamp === null ? asInstaller : asUser;
      const entered = await extend(gate, key, request, deps);
      if (entered !== null) return entered;
    }
  });
}

/** Registers a build without a gate as a user of the caches. Throws CANCELLED, STORAGE. */
export async function useWithoutGate(
  build: ToolBuild,
  key: ToolchainKey,
  { directories }: ToolsDeps,
): Promise<ToolUser> {
  return reportingWait(build, key, (request) => directories.use(cacheNames, request));
}

export type ToolRequest = Pick<GateOptions, 'reason' | 'signal' | 'onBlocked'>;

/** Runs `act`, and reports in the job's log and state when it has to wait. */
export async function reportingWait<T>(
  { id, lease, signal, output, onWaiting }: ToolBuild,
  key: ToolchainKey,
  act: (request: ToolRequest) => Promise<T>,
): Promise<T> {
  let isReported = false;
  const result = await act({
    reason: `compile ${id}`,
    signal: AbortSignal.any([signal, lease.signal]),
    onBlocked() {
      if (!isReported) output(`Waiting for another build to install the tools of ${platformText(key)}.\n`);
      isReported = true;
      onWaiting({ for: 'toolchain', platform: key.platform });
    },
  });
  if (isReported) onWaiting(null);
  return result;
}

/**
 * Extends the gate of a build that is alone in it: nobody else uses the directories that it can write to. PlatformIO
 * and LibreTiny rename packages that other platforms, frameworks and releases read. `prepare` runs before the build.
 * Leaves the gate on failure.
 */
export async function asInstaller(
  gate: ToolchainGate,
  key: ToolchainKey,
  request: ToolRequest,
  { directories }: ToolsDeps,
  prepare?: (installer: ToolInstaller) => Promise<void>,
): Promise<ToolchainGate> {
  const held: { leave(): Promise<void> }[] = [gate];
  async function leave(): Promise<void> {
    for (const each of held.toReversed()) await each.leave();
  }
  try {
    const installer = await directories.useAlone(directoriesOf(key), request);
    held.unshift(installer);
    await prepare?.(installer);
    const caches = await directories.use(cacheNames, request);
    held.push(caches);
    return {
      ...gate,
      signal: AbortSignal.any([gate.signal, installer.signal]),
      async recordBuild(build) {
        for (const each of [caches, installer, gate]) await each.recordBuild(build);
      },
      leave,
    };
  } catch (error) {
    await leave();
    throw error;
  }
}

/**
 * Extends the gate with a registered use of the tools. Null when the tools were removed before the registration. Leaves
 * the gate on null and on failure.
 */
export async function asUser(
  gate: ToolchainGate,
  key: ToolchainKey,
  request: ToolRequest,
  { directories }: ToolsDeps,
): Promise<ToolchainGate | null> {
  let use: ToolUser | undefined;
  try {
    use = await directories.use([...directoriesOf(key), ...cacheNames], request);
    // Checks that the tools are still ready.
    await gate.recordBuild(null);
  } catch (error) {
    await use?.leave();
    await gate.leave();
    if (isReceiverError(error, 'FENCED')) return null;
    throw error;
  }
  const { recordBuild, leave } = use;
  return {
    ...gate,
    async recordBuild(build) {
      await recordBuild(build);
      await gate.recordBuild(build);
    },
    async leave() {
      await leave();
      await gate.leave();
    },
  };
}

/** All directories of tools if the platform is unknown. */
function directoriesOf(key: ToolchainKey): readonly string[] {
  return buildDirectories(platformKey(key.platform), key);
}

function platformText({ platform }: ToolchainKey): string {
  return platform === unknown ? 'an unknown platform' : platform;
}
