/**
 * How a build enters the gate of its shared tools (gate.ts): always under the device's lease, never the other way
 * round. A build alone in a gate has yet to install its tools, and so also becomes their platform's installer. A build
 * in a gate has registered the directories it uses, so that they are not removed (directories.ts).
 */
import { isReceiverError } from '../errors.js';
import { platformKey, platformRows, cacheNames, usedDirectories } from '../esphome/platforms.js';
import type { Lease } from '../locks/lease.js';
import type { ToolUser } from '../locks/shared-use.js';
import type { Log } from '../log.js';
import type { Paths } from '../paths/index.js';
import type { ToolDirectories } from './directories.js';
import type { Installer, InstallerOptions, ToolchainGate, GateOptions, ToolchainKey } from './gate.js';

/** The platform of a configuration that does not name one. */
export const unknown = 'unknown';

export interface ToolsDeps {
  readonly paths: Pick<Paths, 'layout' | 'resolveConfigPath'>;
  /** Rejects as the function in gate.ts does. */
  readonly enterToolchain: (
    request: Pick<GateOptions, 'key' | 'broken' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<ToolchainGate>;
  /** Rejects as {@link becomeInstaller} does. */
  readonly becomeInstaller: (
    request: Pick<InstallerOptions, 'platforms' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<Installer>;
  readonly directories: Pick<ToolDirectories, 'use' | 'setAside'>;
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
}

export type Guard = Pick<Lease, 'signal' | 'recordBuild'>;

/** Waits until a build can use its tools. Throws CANCELLED, STORAGE. */
export async function enter(build: ToolBuild, key: ToolchainKey, deps: ToolsDeps): Promise<ToolchainGate> {
  return reportingWait(build, key, async (request) => {
    for (;;) {
      const gate = await deps.enterToolchain({ ...request, key });
      const own = gate.stamp === null ? await asInstaller(gate, platformsOf(key), request, deps) : gate;
      const entered = await asUser(own, key, request, deps);
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

/** Extends the gate with the installer role for those platforms. Leaves the gate on failure. */
export async function asInstaller(
  gate: ToolchainGate,
  platforms: readonly string[],
  request: ToolRequest,
  { becomeInstaller }: ToolsDeps,
): Promise<ToolchainGate> {
  try {
    const installer = await becomeInstaller({ ...request, platforms });
    return {
      ...gate,
      signal: AbortSignal.any([gate.signal, installer.signal]),
      async recordBuild(build) {
        await installer.recordBuild(build);
        await gate.recordBuild(build);
      },
      async leave() {
        await gate.leave();
        await installer.release();
      },
    };
  } catch (error) {
    await gate.leave();
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
    use = await directories.use(usedDirectories(platformKey(key.platform)), request);
    // Checks that the tools are still ready.
    if (gate.stamp !== null) await gate.recordBuild(null);
  } catch (error) {
    await use?.leave();
    await gate.leave();
    if (gate.stamp !== null && isReceiverError(error, 'FENCED')) return null;
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

/** The platforms whose tools a build can write to: all of them if its own is unknown. */
function platformsOf({ platform }: ToolchainKey): readonly string[] {
  return platform === unknown ? Object.keys(platformRows) : [platform];
}

function platformText({ platform }: ToolchainKey): string {
  return platform === unknown ? 'an unknown platform' : platform;
}

export function nameOf({ platform, framework, version }: ToolchainKey): string {
  return JSON.stringify([platform, framework, version]);
}
