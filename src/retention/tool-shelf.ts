/** All that devices share, as one shelf: installed releases of ESPHome and toolchains have one limit together. */
import type { Shelf } from './shelf.js';
import { createToolchainShelf, type ToolchainShelfDeps } from './toolchain-shelf.js';
import { createVersionShelf, type VersionShelfDeps } from './version-shelf.js';

export type ToolShelfDeps = VersionShelfDeps & ToolchainShelfDeps;

export function createToolShelf(deps: ToolShelfDeps): Shelf {
  const versions = createVersionShelf(deps);
  const toolchains = createToolchainShelf(deps);
  return {
    list: async () => [...(await versions.list()), ...(await toolchains.list())],
    async measure(signal) {
      await versions.measure?.(signal);
      await toolchains.measure?.(signal);
    },
    strange: async () => (await toolchains.strange?.()) ?? [],
    remove: (entry) => (entry.item.kind === 'version' ? versions : toolchains).remove(entry),
  };
}
