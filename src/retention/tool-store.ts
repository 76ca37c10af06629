/** All that devices share, as one store: installed releases of ESPHome and toolchains have one limit together. */
import { readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';

import type { Clock } from '../async/clock.js';
import { removeTree } from '../disk/remove.js';
import { makerOf } from '../disk/temporary.js';
import { cacheNames, toolchains } from '../esphome/platforms.js';
import type { Strange } from '../jobs/devices-on-disk.js';
import type { Log } from '../log.js';
import type { Layout } from '../paths/index.js';
import { stampPrefix, type ToolDirectories } from '../toolchains/directories.js';
import { markPrefix } from '../toolchains/gate.js';
import type { EvictableStore } from './evictable.js';
import { createReleaseStore, type ReleaseStoreDeps } from './release-store.js';
import { patienceMs } from './sweep.js';
import { createToolSizes } from './tool-sizes.js';

export type ToolStoreDeps = ReleaseStoreDeps & ToolchainStoreDeps;

export function createToolStore(deps: ToolStoreDeps): EvictableStore {
  const versions = createReleaseStore(deps);
  const tools = createToolchainStore(deps);
  return {
    list: async () => [...(await versions.list()), ...(await tools.list())],
    async measure(signal) {
      await versions.measure?.(signal);
      await tools.measure?.(signal);
    },
    strange: async () => (await tools.strange?.()) ?? [],
    remove: (entry) => (entry.item.kind === 'version' ? versions : tools).remove(entry),
  };
}

/**
 * The shared toolchains and caches as a store: gigabytes each, and a build of any device may need them. One goes as a
 * whole, while no build uses it (toolchains/directories.ts), and the next build installs it anew.
 */
export interface ToolchainStoreDeps {
  readonly layout: Pick<Layout, 'buildsDir' | 'toolchainsDir'>;
  readonly directories: Omit<ToolDirectories, 'use'>;
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

/** A figure as old as this is measured anew, also without a use. */
const remeasureMs = 86_400_000;
const sizePrefix = '.size-';
const ownPrefixes = [markPrefix, stampPrefix, sizePrefix];

export function createToolchainStore(deps: ToolchainStoreDeps): EvictableStore {
  const { layout, directories, clock } = deps;
  const { buildsDir, toolchainsDir } = layout;
  const sizes = createToolSizes(deps);

  const sizeFile = (directory: string): string => join(toolchainsDir, sizePrefix + directory);

  async function present(): Promise<(readonly [toolchain: string, directory: string])[]> {
    const names = new Set(await readdir(toolchainsDir));
    return [...toolchains].filter(([, directory]) => names.has(directory));
  }

  async function isDue(directory: string): Promise<boolean> {
    const note = await sizes.read(sizeFile(directory));
    if (note === null || Math.abs(clock.wall() - note.measuredAt) >= remeasureMs) return true;
    return (await directories.lastUse(directory)) > note.measuredAt;
  }

  return {
    async list() {
      const listed = (await present()).map(async ([toolchain, directory]) => ({
        item: { kind: 'toolchain', toolchain } as const,
        bytes: (await sizes.read(sizeFile(directory)))?.bytes ?? 0,
        usedAt: await directories.lastUse(directory),
        isInUse: await directories.isInUse(directory),
        goesByAgeOnly: cacheNames.includes(directory),
      }));
      return Promise.all(listed);
    },
    async measure(signal) {
      for (const [, directory] of await present()) {
        if (signal.aborted) return;
        if (!(await isDue(directory))) continue;
        await sizes.measure(sizeFile(directory), { path: join(toolchainsDir, directory), of: '' }, signal);
      }
    },
    async strange() {
      const known = new Set(toolchains.values());
      const strange: Strange[] = [];
      for (const name of await readdir(toolchainsDir)) {
        const isOwn = ownPrefixes.some((prefix) => name.startsWith(prefix)) || makerOf(name) !== null;
        const path = join(toolchainsDir, name);
        if (isOwn) continue;
        if (!known.has(name)) strange.push({ place: relative(buildsDir, path), why: 'it is no toolchain' });
      }
      return strange;
    },
    async remove({ item, usedAt }) {
      const directory = item.kind === 'toolchain' ? toolchains.get(item.toolchain) : undefined;
      if (directory === undefined) return false;
      const trashed = await directories.setAside(directory, {
        reason: 'removing tools that are not used any more',
        deadlineMs: patienceMs,
        isWanted: async () => (await directories.lastUse(directory)) === usedAt,
      });
      if (trashed === null) return false;
      await sizes.forget(sizeFile(directory));
      await removeTree(trashed);
      return true;
    },
  };
}
