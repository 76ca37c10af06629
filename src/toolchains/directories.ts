/**
 * The directories of shared tools: which builds use them, when one was last used, and how one is taken away. A build that
 * finds half of its compiler gone fails in a way that nobody understands, so a directory goes only while no build uses it, here
 * or in another process, and as a whole; its tools are cold from then on (toolchains/gate.ts), and the next build
 * installs them anew and alone.
 *
 * Caches have no gate and go in the same way. A compiler cache does tolerate that files of it vanish, but not those that
 * a running compile keeps below it, which fails then (github.com/ccache/ccache/issues/480).
 */
import { join } from 'node:path';

import { runOnce } from '../async/single-flight.js';
import { isThere } from '../disk/open-regular.js';
import { moveToTrash } from '../disk/remove.js';
import { createUseStamps, type UseStampsOptions } from '../disk/use-stamps.js';
import { platformKey, cacheNames, toolDirectories } from '../esphome/platforms.js';
import type { LockTiming } from '../locks/lease.js';
import { isUsed, showUse, whileUnused, type SharedOptions, type ToolUser } from '../locks/shared-use.js';
import type { Layout } from '../paths/index.js';
import { forgetReady } from './gate.js';

/** Directories are named as below `toolchainsDir`. */
export interface ToolDirectories {
  /** Shows that a build uses these until it leaves. Waits for one that is being taken away. Throws CANCELLED, STORAGE. */
  use(directories: readonly string[], wish: ToolUse): Promise<ToolUser>;
  isInUse(directory: string): Promise<boolean>;
  /** Milliseconds since 1970, to the minute; a use that is not known counts as now. Never rejects. */
  lastUse(directory: string): Promise<number>;
  /**
   * Moves one out of sight and says where it lies then, to be removed; null when it was not wanted any more, or
   * nothing was there. Waits for the builds that use it. Throws CANCELLED, LOCK_TIMEOUT, STORAGE and system errors.
   */
  setAside(directory: string, removal: ToolRemoval): Promise<string | null>;
}

export type ToolUse = Pick<SharedOptions, 'reason' | 'signal' | 'onBlocked'>;

export interface ToolRemoval extends Pick<SharedOptions, 'reason' | 'signal' | 'onBlocked' | 'deadlineMs'> {
  /** Asked when nobody can use it any more: whether it is still to go. */
  readonly isWanted?: () => Promise<boolean>;
}

export interface ToolDirectoriesOptions extends UseStampsOptions {
  readonly layout: Pick<Layout, 'toolchainsDir' | 'trashDir' | 'locksDir'>;
  readonly timing: LockTiming;
}

/** Of the names of the stamps, which lie beside the tools: the environment of a build names only what is below. */
export const stampPrefix = '.used-';

export function createToolDirectories(options: ToolDirectoriesOptions): ToolDirectories {
  const { layout, timing, log } = options;
  const { toolchainsDir, trashDir, locksDir } = layout;
  const stamps = createUseStamps(options);
  const shared = { locksDir, timing, log };

  const stampOf = (directory: string): string => join(toolchainsDir, stampPrefix + directory);

  async function noteUse(directories: readonly string[]): Promise<void> {
    for (const directory of directories) {
      if (await isThere(join(toolchainsDir, directory))) await stamps.note(stampOf(directory));
    }
  }

  return {
    async use(directories, wish) {
      const user = await showUse(directories.map(lockOf), { ...shared, ...wish });
      return {
        recordBuild: user.recordBuild,
        // Who sees no user any more must find the stamp.
        leave: runOnce(() =>
          noteUse(directories)
            .then(user.leave)
            .catch((error: unknown) => log.warn({ directories, err: error }, 'tool use marker not removed')),
        ),
      };
    },
    isInUse: (directory) => isUsed(lockOf(directory), shared),
    lastUse: (directory) => stamps.last(stampOf(directory)),
    setAside: (directory, { isWanted, ...wish }) =>
      whileUnused(lockOf(directory), { ...shared, ...wish }, async (lease) => {
        if ((await isWanted?.()) === false) return null;
        return lease.publish(async () => {
          await forgetReady(toolchainsDir, ({ platform }) => liesIn(platform, directory));
          const trashed = await moveToTrash(join(toolchainsDir, directory), trashDir);
          await stamps.forget(stampOf(directory));
          return trashed;
        });
      }),
  };
}

/** Builds use all caches or none, so one sign is enough for them. */
function lockOf(directory: string): string {
  return cacheNames.includes(directory) ? 'caches' : directory;
}

/** Whether tools of a platform may be in a directory. Those of one that is not known may be anywhere but in a cache. */
function liesIn(platform: string, directory: string): boolean {
  if (cacheNames.includes(directory)) return false;
  const known = platformKey(platform);
  return known === null || toolDirectories(known).includes(directory);
}
