/**
 * The way of a build into the gate of its shared tools (toolchains/gate.ts). Always
 * under the device's lease, never the other way round.
 *
 * Who is alone in a gate has tools that are yet to be installed, and is their platform's installer as well. Who is in has
 * shown which directories it uses, so that nobody takes them away (tool-directories.ts).
 */
import { isReceiverError } from '../errors.js';
import { platformKey, platformRows, cacheNames, usedDirectories } from '../esphome/platforms.js';
import type { Lease } from '../locks/lease.js';
import type { ToolUser } from '../locks/shared-use.js';
import type { Log } from '../log.js';
import type { Paths } from '../paths/index.js';
import type { ToolDirectories } from './directories.js';
import type { Installer, InstallerOptions, ToolchainGate, GateOptions, ToolchainKey } from './gate.js';

/** The platform that the configuration does not say. */
export const unknown = 'unknown';

export interface ToolsDeps {
  readonly paths: Pick<Paths, 'layout' | 'resolveConfigPath'>;
  /** Rejects as the toolchain gate does. */
  readonly enterToolchain: (
    wish: Pick<GateOptions, 'key' | 'broken' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<ToolchainGate>;
  /** Rejects as {@link becomeInstaller} does. */
  readonly becomeInstaller: (
    wish: Pick<InstallerOptions, 'platforms' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<Installer>;
  readonly directories: Pick<ToolDirectories, 'use' | 'setAside'>;
  readonly log: Log;
}

/** Another build installs the tools of that platform. */
export interface ToolWait {
  readonly for: 'toolchain';
  readonly platform: string;
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
  onWaiting(waiting: ToolWait | null): void;
}

/** What a compile runs under. */
export type Guard = Pick<Lease, 'signal' | 'recordBuild'>;

/** Waits until a build may use its tools. Throws CANCELLED, STORAGE. */
export async function enter(build: ToolBuild, key: ToolchainKey, deps: ToolsDeps): Promise<ToolchainGate> {
  return telling(build, key, async (wish) => {
    for (;;) {
      const gate = await deps.enterToolchain({ ...wish, key });
      const own = gate.stamp === null ? await asInstaller(gate, platformsOf(key), wish, deps) : gate;
      const entered = await asUser(own, key, wish, deps);
      if (entered !== null) return entered;
    }
  });
}

/** Shows that a build without a gate uses the caches. Throws CANCELLED, STORAGE. */
export async function useWithoutGate(
  build: ToolBuild,
  key: ToolchainKey,
  { directories }: ToolsDeps,
): Promise<ToolUser> {
  return telling(build, key, (wish) => directories.use(cacheNames, wish));
}

export type ToolRequest = Pick<GateOptions, 'reason' | 'signal' | 'onBlocked'>;

/** Does what may have to wait, and says so to the build's people as long as it does. */
export async function telling<T>(
  { id, lease, signal, output, onWaiting }: ToolBuild,
  key: ToolchainKey,
  act: (wish: ToolRequest) => Promise<T>,
): Promise<T> {
  let isTold = false;
  const result = await act({
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
  return result;
}

/** The same gate, for one who writes to the tools of those platforms. Leaves it when that cannot be. */
export async function asInstaller(
  gate: ToolchainGate,
  platforms: readonly string[],
  wish: ToolRequest,
  { becomeInstaller }: ToolsDeps,
): Promise<ToolchainGate> {
  try {
    const installer = await becomeInstaller({ ...wish, platforms });
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
 * The same gate, for one who is seen to use the tools. Null, and left, when they were taken away before it was seen; and
 * left when it cannot be.
 */
export async function asUser(
  gate: ToolchainGate,
  key: ToolchainKey,
  wish: ToolRequest,
  { directories }: ToolsDeps,
): Promise<ToolchainGate | null> {
  let use: ToolUser | undefined;
  try {
    use = await directories.use(usedDirectories(platformKey(key.platform)), wish);
    // Asks whether the tools are ready still.
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

/** Whose tools a build may write to: that of an unknown platform may turn out to be of any. */
function platformsOf({ platform }: ToolchainKey): readonly string[] {
  return platform === unknown ? Object.keys(platformRows) : [platform];
}

function platformText({ platform }: ToolchainKey): string {
  return platform === unknown ? 'an unknown platform' : platform;
}

/** The same for the same tools. */
export function nameOf({ platform, framework, version }: ToolchainKey): string {
  return JSON.stringify([platform, framework, version]);
}
