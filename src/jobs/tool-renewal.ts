/**
 * The way of a build whose tools are broken: it comes back to them alone, has them set aside and installs them anew. All
 * who use what lies in the same directories are waited for.
 */
import { removeTree } from '../disk/remove.js';
import { messageOf } from '../errors.js';
import { platformKey, type PlatformKey } from '../esphome/platforms.js';
import { toolDirectories } from '../esphome/tools.js';
import { readyTools, type Gate, type ToolchainKey } from '../locks/toolchain-gate.js';
import {
  asInstaller,
  asUser,
  enter,
  nameOf,
  telling,
  type ToolBuild,
  type ToolsDeps,
  type Wish,
} from './tool-gates.js';

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
  // Those that somebody has renewed can be taken away before we are seen.
  return (await tryRenew(build, key, stamp, deps)) ?? enter(build, key, deps);
}

async function tryRenew(
  build: ToolBuild,
  key: ToolchainKey,
  stamp: string | null,
  deps: ToolsDeps,
): Promise<Gate | null> {
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
  wish: Wish,
  { directories, log }: ToolsDeps,
): Promise<void> {
  for (const directory of names) {
    const trashed = await directories.setAside(directory, wish);
    if (trashed === null) continue;
    log.warn({ directory }, 'broken tools are set aside and will be installed again');
    await removeTree(trashed).catch((error: unknown) => {
      log.warn({ trashed, error: messageOf(error) }, 'broken tools could not be removed');
    });
  }
}
