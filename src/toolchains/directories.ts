/**
 * The directories of shared tools: their users, their last use, and their removal. A build whose compiler is half
 * removed fails with an incomprehensible error, so a directory is removed as a whole and only while no build uses it,
 * in this or another process. Its tools are then no longer ready (gate.ts), and the next build installs them alone.
 *
 * Caches have no gate and are removed in the same way. A compiler cache tolerates the loss of its files, but not of
 * those that a running compile keeps in it: that compile fails (github.com/ccache/ccache/issues/480).
 */
import { join } from 'node:path';

import { runOnce } from '../async/calls.js';
import { isThere } from '../disk/open-regular.js';
import { moveToTrash } from '../disk/remove.js';
import { createUseStamps, type UseStampsOptions } from '../disk/use-stamps.js';
import { platformKey, cacheNames, toolDirectories } from '../esphome/platforms.js';
import type { LockTiming } from '../locks/lease.js';
import {
  isUsed,
  showUse,
  useAlone,
  whileUnused,
  type SharedOptions,
  type SoleUser,
  type ToolUser,
} from '../locks/shared-use.js';
import type { Layout } from '../paths/index.js';
import { forgetReady } from './gate.js';

export type ToolDirectories = ReturnType<typeof createToolDirectories>;

export interface ToolInstaller extends Pick<SoleUser, 'signal' | 'recordBuild' | 'leave'> {
  /** As that of {@link ToolDirectories}, for a directory that it uses. */
  setAside(directory: string): Promise<string | null>;
}

type ToolUse = Pick<SharedOptions, 'reason' | 'signal' | 'onBlocked'>;

interface ToolRemoval extends ToolUse, Pick<SharedOptions, 'deadlineMs'> {
  /** Called once no build can use the directory: whether it is still to be removed. */
  readonly isWanted?: () => Promise<boolean>;
}

interface ToolDirectoriesOptions extends UseStampsOptions {
  readonly layout: Pick<Layout, 'toolchainsDir' | 'trashDir' | 'locksDir'>;
  readonly timing: LockTiming;
}

/** The stamps are beside the tools: the environment of a build names only what is below. */
export const stampPrefix = '.used-';

/** Directories are named relative to `toolchainsDir`. */
export function createToolDirectories(options: ToolDirectoriesOptions) {
  const { layout, timing, log } = options;
  const { toolchainsDir, trashDir, locksDir } = layout;
  const stamps = createUseStamps(options);
  const shared = { locksDir, timing, log };

  const stampOf = (directory: string): string => join(toolchainsDir, stampPrefix + directory);

  async function recordUse(directories: readonly string[]): Promise<void> {
    for (const directory of directories) {
      if (await isThere(join(toolchainsDir, directory))) await stamps.recordUse(stampOf(directory));
    }
  }

  /** A process that no longer sees the user must find the stamp. */
  function leaver(directories: readonly string[], leave: () => Promise<void>): () => Promise<void> {
    const warn = (error: unknown): void =>
      log.warn({ directories, err: error }, 'tool use marker not removed');
    return runOnce(() => recordUse(directories).catch(warn).then(leave).catch(warn));
  }

  async function discard(directory: string): Promise<string | null> {
    await forgetReady(toolchainsDir, ({ platform }) => liesIn(platform, directory));
    const trashed = await moveToTrash(join(toolchainsDir, directory), trashDir);
    await stamps.forget(stampOf(directory));
    return trashed;
  }

  return {
    /** Registers a build as user until it leaves. Waits for a removal in progress. Throws CANCELLED, STORAGE. */
    async use(directories: readonly string[], request: ToolUse): Promise<ToolUser> {
      const user = await showUse(directories.map(lockOf), { ...shared, ...request });
      return { recordBuild: user.recordBuild, leave: leaver(directories, user.leave) };
    },
    /** Registers a build that installs: as the only user. Throws CANCELLED, STORAGE. */
    async useAlone(directories: readonly string[], request: ToolUse): Promise<ToolInstaller> {
      const { leave, publish, ...user } = await useAlone(directories.map(lockOf), { ...shared, ...request });
      return {
        ...user,
        leave: leaver(directories, leave),
        setAside: (directory) => publish(() => discard(directory)),
      };
    },
    isInUse: (directory: string): Promise<boolean> => isUsed(lockOf(directory), shared),
    /** Milliseconds since 1970, to the minute; an unknown use counts as now. Never rejects. */
    lastUse: (directory: string): Promise<number> => stamps.last(stampOf(directory)),
    /**
     * Moves one to the trash and returns its path there, for removal; null when `isWanted` says no or it does not exist.
     * Waits for the builds that use it. Throws CANCELLED, LOCK_TIMEOUT, STORAGE and system errors.
     */
    setAside: (directory: string, { isWanted, ...request }: ToolRemoval): Promise<string | null> =>
      whileUnused(lockOf(directory), { ...shared, ...request }, async (lease) => {
        if ((await isWanted?.()) === false) return null;
        return lease.publish(() => discard(directory));
      }),
  };
}

/** Builds use all caches or none, so they share one lock. */
function lockOf(directory: string): string {
  return cacheNames.includes(directory) ? 'caches' : directory;
}

/** Whether a directory can contain tools of a platform. Those of an unknown one can be anywhere except in a cache. */
function liesIn(platform: string, directory: string): boolean {
  if (cacheNames.includes(directory)) return false;
  const known = platformKey(platform);
  return known === null || toolDirectories(known).includes(directory);
}
