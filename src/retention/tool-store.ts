/**
 * Stores of what devices share: installed ESPHome releases and toolchains, which have one size limit together, and caches.
 * A release takes 220 MB and is removed under the lock of its environment. A toolchain takes gigabytes and can serve any
 * device's build; it is removed as a whole while no build uses it (toolchains/directories.ts), and the next build installs
 * it again. It has a hundred thousand files, so walks are rare, and sizes are recorded on disk for the next start and for
 * other receivers.
 */
import { rm } from 'node:fs/promises';
import { join, relative, basename } from 'node:path';

import * as z from 'zod';

import type { Clock } from '../async/clock.js';
import { readJsonFile, writeJsonFile } from '../disk/json-file.js';
import { removeTree } from '../disk/remove.js';
import { namesIn } from '../disk/names.js';
import { makerOf } from '../disk/names.js';
import { measure } from '../disk/usage.js';
import { createUseStamps } from '../disk/use-stamps.js';
import { cacheNames, toolchains } from '../esphome/platforms.js';
import type { Strange } from '../jobs/devices-on-disk.js';
import type { LockTiming } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { Layout } from '../paths/index.js';
import { venvName, venvVersion } from '../provision/releases.js';
import { placeOf, usedFile, findVenvs, removeVenv, type FoundVenv } from '../provision/venv-place.js';
import { stampPrefix, type ToolDirectories } from '../toolchains/directories.js';
import { markPrefix } from '../toolchains/gate.js';
import type { EvictableStore } from './evictable.js';
import { patienceMs } from './sweep.js';

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

export interface ToolchainStoreDeps {
  readonly layout: Pick<Layout, 'buildsDir' | 'toolchainsDir'>;
  readonly directories: Omit<ToolDirectories, 'use'>;
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

/** Sizes older than this are measured again even if the toolchain was not used. */
const remeasureMs = 86_400_000;
const sizePrefix = '.size-';
const ownPrefixes = [markPrefix, stampPrefix, sizePrefix];

export function createToolchainStore(deps: ToolchainStoreDeps): EvictableStore {
  const { layout, directories, clock } = deps;
  const { buildsDir, toolchainsDir } = layout;
  const sizes = createToolSizes(deps);

  const sizeFile = (directory: string): string => join(toolchainsDir, sizePrefix + directory);

  async function present(): Promise<(readonly [toolchain: string, directory: string])[]> {
    const names = new Set(await namesIn(toolchainsDir));
    return [...toolchains].filter(([, directory]) => names.has(directory));
  }

  async function isDue(directory: string): Promise<boolean> {
    const size = await sizes.read(sizeFile(directory));
    if (size === null || Math.abs(clock.wall() - size.measuredAt) >= remeasureMs) return true;
    return (await directories.lastUse(directory)) > size.measuredAt;
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
      for (const name of await namesIn(toolchainsDir)) {
        const isOwn = ownPrefixes.some((prefix) => name.startsWith(prefix)) || makerOf(name) !== null;
        const path = join(toolchainsDir, name);
        if (isOwn || known.has(name)) continue;
        strange.push({ place: relative(buildsDir, path), why: 'it is not a toolchain' });
      }
      return strange;
    },
    async remove({ item, usedAt }) {
      const directory = item.kind === 'toolchain' ? toolchains.get(item.toolchain) : undefined;
      if (directory === undefined) return false;
      const trashed = await directories.setAside(directory, {
        reason: 'removing unused tools',
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

export interface ReleaseStoreDeps {
  readonly layout: Pick<Layout, 'venvsDir' | 'locksDir'>;
  readonly timing: LockTiming;
  readonly clock: Pick<Clock, 'wall'>;
  readonly log: Log;
}

type Version = Pick<FoundVenv, 'place' | 'isInUse'> & { readonly version: string; readonly ready: string };

export function createReleaseStore(deps: ReleaseStoreDeps): EvictableStore {
  const { layout, timing, log } = deps;
  const stamps = createUseStamps(deps);
  const sizes = createToolSizes(deps);

  async function versions(): Promise<readonly Version[]> {
    const found = await findVenvs({ ...layout, timing });
    return found.flatMap(({ name, place, ready, isInUse }) => {
      const version = venvVersion(name);
      return version === null || ready === null ? [] : [{ version, place, ready, isInUse }];
    });
  }

  return {
    async list() {
      const listed = (await versions()).map(async ({ version, place, ready, isInUse }) => {
        const size = await sizes.read(releaseSizeFile(place));
        const bytes = size?.of === basename(ready) ? size.bytes : 0;
        const item = { kind: 'version', version } as const;
        return { item, bytes, usedAt: await stamps.last(usedFile(place)), isInUse };
      });
      return Promise.all(listed);
    },
    async measure(signal) {
      for (const { place, ready } of await versions()) {
        if (signal.aborted) return;
        // An installed release does not change.
        const of = basename(ready);
        if ((await sizes.read(releaseSizeFile(place)))?.of === of) continue;
        await sizes.measure(releaseSizeFile(place), { path: place.directory, of }, signal);
      }
    },
    async remove({ item, usedAt }) {
      if (item.kind !== 'version') return false;
      const place = placeOf({ ...layout, name: venvName(item.version) });
      return removeVenv({ place, usedAt }, { timing, waitMs: patienceMs, log });
    },
  };
}

/** Inside the environment, and removed with it. */
function releaseSizeFile({ directory }: FoundVenv['place']): string {
  return join(directory, 'size');
}

/** `of` names the measured directory if another can replace it; otherwise it is empty. */
const schema = z.object({ bytes: z.number().nonnegative(), measuredAt: z.number(), of: z.string() });
const format = { maxBytes: 4_096, parse: schema.parse };
type ToolSize = z.infer<typeof schema>;

/** No method rejects. */
function createToolSizes({ clock, log }: Pick<ReleaseStoreDeps, 'clock' | 'log'>) {
  /** Sizes that could not be written to disk. */
  const unwritten = new Map<string, ToolSize>();

  return {
    /** Null until measured. */
    read: async (file: string): Promise<ToolSize | null> =>
      unwritten.get(file) ?? readJsonFile(file, format).catch(() => null),
    /** Walks `path` and records its disk usage in `file`, unless the signal aborts. */
    async measure(
      file: string,
      { path, of }: { readonly path: string; readonly of: string },
      signal: AbortSignal,
    ): Promise<void> {
      const measuredAt = clock.wall();
      try {
        const { diskBytes: bytes } = await measure(path, { unlock: true, signal });
        const size: ToolSize = { bytes, measuredAt, of };
        unwritten.set(file, size);
        await writeJsonFile(file, size);
        unwritten.delete(file);
      } catch (error) {
        if (!signal.aborted) log.warn({ path, err: error }, 'tool measurement failed');
      }
    },
    async forget(file: string): Promise<void> {
      unwritten.delete(file);
      await rm(file, { force: true }).catch(() => {});
    },
  };
}
