/**
 * Installed releases of ESPHome as a store. Each takes 220 MB, whoever has asked for it once; it goes under the lock of
 * its environment, and not while somebody holds it.
 */
import { basename, join } from 'node:path';

import type { Clock } from '../async/clock.js';
import { createUseStamps } from '../disk/use-stamps.js';
import type { LockTiming } from '../locks/lease.js';
import type { Log } from '../log.js';
import type { Layout } from '../paths/index.js';
import { venvName, venvVersion } from '../provision/releases.js';
import {
  placeOf,
  usedFile,
  type VenvPlace,
  findVenvs,
  removeVenv,
  type FoundVenv,
} from '../provision/venv-place.js';
import type { EvictableStore } from './evictable.js';
import { patienceMs } from './sweep.js';
import { createToolSizes } from './tool-sizes.js';

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
        const note = await sizes.read(sizeFile(place));
        const bytes = note?.of === basename(ready) ? note.bytes : 0;
        const item = { kind: 'version', version } as const;
        return { item, bytes, usedAt: await stamps.last(usedFile(place)), isInUse };
      });
      return Promise.all(listed);
    },
    async measure(signal) {
      for (const { place, ready } of await versions()) {
        if (signal.aborted) return;
        // What is installed does not change.
        const of = basename(ready);
        if ((await sizes.read(sizeFile(place)))?.of === of) continue;
        await sizes.measure(sizeFile(place), { path: place.directory, of }, signal);
      }
    },
    async remove({ item, usedAt }) {
      if (item.kind !== 'version') return false;
      const place = placeOf({ ...layout, name: venvName(item.version) });
      return removeVenv({ place, usedAt }, { timing, waitMs: patienceMs, log });
    },
  };
}

/** Goes with the environment. */
function sizeFile({ directory }: VenvPlace): string {
  return join(directory, 'size');
}
