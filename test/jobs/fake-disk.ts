/** What outlives a world: the records, and where bundles and results lie. */
import { setImmediate as turn } from 'node:timers/promises';

import type { BundleStore } from '../../src/bundles/store.js';
import type { MemoryPlace } from './memory-store.js';
import { bundleIn } from './examples.js';
import type { Moment } from './harness.js';

export interface Disk {
  readonly place: MemoryPlace;
  readonly artifacts: Set<string>;
  readonly staging: Set<string>;
  /** By device, the staging directory that its configuration came from. */
  readonly installed: Map<string, string>;
  readonly fences: Map<string, number>;
}

export function emptyDisk(): Disk {
  return {
    place: { records: new Map(), owners: new Map() },
    ...{ artifacts: new Set(), staging: new Set(), installed: new Map(), fences: new Map() },
  };
}

/** Bundles on that disk, each step of which goes through the gate. */
export function keptOn(disk: Disk, pass: (moment: Moment) => Promise<void>): BundleStore {
  const { staging, installed } = disk;
  return {
    async keep(id, { directory }) {
      await pass('keep');
      staging.delete(directory);
      staging.add(`/kept/${id}`);
      return bundleIn({ pass, staging }, `/kept/${id}`);
    },
    async find({ id, dashboardId, device }) {
      await turn();
      await pass('find');
      const isThere = staging.has(`/kept/${id}`);
      if (!isThere && installed.get(`${dashboardId} ${device}`) !== `/kept/${id}`) return null;
      return bundleIn({ pass, staging }, `/kept/${id}`);
    },
    async remove(id) {
      staging.delete(`/kept/${id}`);
    },
  };
}
