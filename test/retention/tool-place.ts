/** Shared tools on a real disk with real gates and locks; tests enter and leave builds themselves. */
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { silentLog as log } from '../../src/log.js';
import { createPaths, type Layout } from '../../src/paths/index.js';
import type { EvictableEntry, EvictableStore } from '../../src/retention/evictable.js';
import { createToolchainStore } from '../../src/retention/tool-store.js';
import { enter, type ToolBuild, type ToolsDeps } from '../../src/toolchains/access.js';
import { createToolDirectories, type ToolDirectories } from '../../src/toolchains/directories.js';
import {
  enterToolchain,
  readyTools,
  type ToolchainGate,
  type ToolchainKey,
} from '../../src/toolchains/gate.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';

const timing = { staleMs: 2_000, updateMs: 1_000 };

export interface ToolPlace {
  readonly layout: Layout;
  readonly directories: ToolDirectories;
  readonly shelf: EvictableStore;
  readonly tools: ToolsDeps;
  readonly clock: ManualClock;
  /** Opens the store again, as another receiver or after a restart. */
  again(): EvictableStore;
  /** Waits until a build of the platform may use its tools. */
  enter(platform: string): Promise<ToolchainGate>;
  /** Runs a successful build that finds or installs the tools in these directories. */
  build(platform: string, ...directories: string[]): Promise<void>;
  /** Writes some bytes into each of these directories. */
  fill(...directories: string[]): Promise<void>;
  entry(toolchain: string): Promise<EvictableEntry | undefined>;
  /** The existing tool directories. */
  list(): Promise<string[]>;
  /** The platforms whose tools are ready. */
  ready(): Promise<string[]>;
}

export async function toolPlace(base: string): Promise<ToolPlace> {
  const paths = createPaths({ configDir: join(base, 'config') });
  const { layout } = paths;
  const { toolchainsDir, locksDir, trashDir, venvsDir } = layout;
  for (const directory of [toolchainsDir, locksDir, trashDir, venvsDir]) {
    await mkdir(directory, { recursive: true });
  }
  const shared = { locksDir, timing, log };
  const clock = manualClock();
  const directories = createToolDirectories({ layout, timing, clock, log });
  const again = (): EvictableStore => createToolchainStore({ layout, directories, clock, log });
  const shelf = again();
  const here: ToolPlace = {
    ...{ layout, directories, shelf, again, clock },
    tools: {
      enterToolchain: (request) => enterToolchain({ ...request, ...shared, toolsDir: toolchainsDir }),
      ...{ paths, directories, log },
    },
    enter: (platform) => enter(buildOf(platform), keyOf(platform), here.tools),
    async build(platform, ...names) {
      const gate = await here.enter(platform);
      await here.fill(...names);
      if (gate.stamp === null) await gate.markReady();
      await gate.leave();
    },
    async fill(...names) {
      for (const name of names) {
        await mkdir(join(toolchainsDir, name, 'bin'), { recursive: true });
        await writeFile(join(toolchainsDir, name, 'bin', 'gcc'), Buffer.alloc(50_000, 1));
      }
    },
    async entry(toolchain) {
      return (await shelf.list()).find(
        ({ item }) => item.kind === 'toolchain' && item.toolchain === toolchain,
      );
    },
    list: async () => (await readdir(toolchainsDir)).filter((name) => !name.startsWith('.')).toSorted(),
    ready: async () => (await readyTools(toolchainsDir)).map(({ key }) => key.platform).toSorted(),
  };
  return here;
}

const keyOf = (platform: string): ToolchainKey => ({
  ...{ platform, framework: 'any', toolchain: 'default', selection: '', version: '1' },
});

function buildOf(id: string): ToolBuild {
  const { signal } = new AbortController();
  const lease = { signal, recordBuild: async () => {} };
  return {
    ...{ id, configuration: '', version: '1', lease, signal },
    output() {},
    onWaiting() {},
    onPlatform() {},
  };
}
