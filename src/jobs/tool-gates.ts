/**
 * The ways into the gates of shared tools (locks/toolchain-gate.ts): for one build, and for one that renews them. Always
 * under the device's lease, never the other way round.
 *
 * Who is alone in a gate has tools that are yet to be installed, and is their platform's installer as well.
 */
import { join } from 'node:path';

import { moveToTrash, removeTree } from '../disk/remove.js';
import { messageOf } from '../errors.js';
import { platformKey, platformRows, type PlatformKey } from '../esphome/platforms.js';
import { toolDirectories } from '../esphome/tools.js';
import type { Installer, InstallerOptions } from '../locks/installers.js';
import type { Lease } from '../locks/lease.js';
import { readyTools, type Gate, type GateOptions, type ToolchainKey } from '../locks/toolchain-gate.js';
import type { Log } from '../log.js';
import type { Paths } from '../paths/index.js';
import type { Waiting } from './waiting.js';

/** The platform that the configuration does not say. */
export const unknown = 'unknown';

export interface ToolsDeps {
  readonly paths: Pick<Paths, 'layout' | 'resolveConfigPath'>;
  /** Rejects as the toolchain gate does. */
  readonly enterToolchain: (
    wish: Pick<GateOptions, 'key' | 'broken' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<Gate>;
  /** Rejects as {@link becomeInstaller} does. */
  readonly becomeInstaller: (
    wish: Pick<InstallerOptions, 'platforms' | 'reason' | 'signal' | 'onBlocked'>,
  ) => Promise<Installer>;
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

/** Waits until a build may use its tools. Throws CANCELLED, STORAGE. */
export async function enter(build: ToolBuild, key: ToolchainKey, deps: ToolsDeps): Promise<Gate> {
  return telling(build, key, async (wish) => {
    const gate = await deps.enterToolchain({ ...wish, key });
    return gate.stamp === null ? asInstaller(gate, platformsOf(key), wish, deps) : gate;
  });
}

type Wish = Pick<GateOptions, 'reason' | 'signal' | 'onBlocked'>;

/** Does what may have to wait, and says so to the build's people as long as it does. */
async function telling<T>(
  { id, lease, signal, output, onWaiting }: ToolBuild,
  key: ToolchainKey,
  act: (wish: Wish) => Promise<T>,
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
async function asInstaller(
  gate: Gate,
  platforms: readonly string[],
  wish: Wish,
  { becomeInstaller }: ToolsDeps,
): Promise<Gate> {
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

/** Whose tools a build may write to: that of an unknown platform may turn out to be of any. */
function platformsOf({ platform }: ToolchainKey): readonly string[] {
  return platform === unknown ? Object.keys(platformRows) : [platform];
}

function platformText({ platform }: ToolchainKey): string {
  return platform === unknown ? 'an unknown platform' : platform;
}

/**
 * Comes back alone, with the platform's tools set aside, unless somebody has renewed them meanwhile. Other platforms
 * lie in the same directories, so whoever is ready with those is waited for, too, and is cold afterwards. The order
 * is the same for all who do this at once, and nobody who waits here holds a gate out of it.
 */
export async function renew(
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
    return await telling(build, key, async (wish) => {
      for (const [name, each] of [...affected].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
        const broken = each.stamp ?? undefined;
        gates.set(name, await deps.enterToolchain({ ...wish, key: each.key, broken }));
      }
      const isAlone = [...gates.values()].every((gate) => gate.stamp === null);
      let own = gates.get(nameOf(key)) as Gate;
      if (own.stamp === null) {
        const platforms = [...affected.values()].map((each) => each.key.platform);
        own = await asInstaller(own, platforms, wish, deps);
        gates.set(nameOf(key), own);
      }
      if (isAlone) await setAside(directories, deps);
      gates.delete(nameOf(key));
      return own;
    });
  } finally {
    for (const gate of gates.values()) await gate.leave();
  }
}

/** The same for the same tools. */
export function nameOf({ platform, framework, version }: ToolchainKey): string {
  return JSON.stringify([platform, framework, version]);
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
