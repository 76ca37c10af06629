/** A retention service on a real disk with manual clocks, fake jobs, and canary files beside everything that is swept. */
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { createPaths } from '../../src/paths/index.js';
import {
  openRetentionService,
  type RetentionService,
  type RetentionServiceDeps,
} from '../../src/retention/service.js';
import type { Cleanups } from '../support/temp-dir.js';
import { emptyPlace, keyOf, mine, other, plant, type Place } from './place.js';
import { playedJobs, type PlayedJobs } from './played-jobs.js';
import { defaultOptions } from '../support/options.js';

export interface KeptPlace extends Omit<Place, 'usage'> {
  readonly jobs: PlayedJobs;
  /** The current service. */
  retentionService: RetentionService;
  /** Opens another service on the same disk. The test closes the previous one, or drops it as a crash does. */
  restart(changes?: Partial<RetentionServiceDeps>): Promise<void>;
  /** Creates a directory outside the swept trees whose files must survive. */
  canary(name: string): Promise<string>;
  assertCanaries(): Promise<void>;
}

export async function keptPlace(
  t: Cleanups,
  changes: Partial<RetentionServiceDeps> = {},
): Promise<KeptPlace> {
  const { usage: _, ...place } = await emptyPlace(t);
  const canaries: string[] = [];
  // Timers never fire: tests call `sweep` themselves.
  const clock = { ...place.clock, after: () => () => {} };
  const jobs = playedJobs();
  const here: KeptPlace = Object.assign(place, {
    ...{ jobs, retentionService: undefined as unknown as RetentionService },
    async restart(further: Partial<RetentionServiceDeps> = {}) {
      here.retentionService = await openRetentionService({
        ...{ ...place, jobs, clock, retention: defaultOptions.retention },
        paths: createPaths({ configDir: join(place.base, 'config') }),
        ...{ resultTtlMs: 2_592_000_000, minFreeDiskBytes: 0 },
        tools: { list: async () => [], remove: async () => false },
        ...changes,
        ...further,
      });
    },
    async canary(name: string) {
      const directory = join(place.base, name);
      await mkdir(join(directory, 'build'), { recursive: true });
      for (const file of ['alive', 'build/alive']) await writeFile(join(directory, file), 'alive');
      canaries.push(directory);
      return directory;
    },
    async assertCanaries() {
      for (const directory of canaries)
        for (const file of ['alive', 'build/alive'])
          assert.equal(await readFile(join(directory, file), 'utf8'), 'alive', directory);
    },
  });
  t.after(() => here.retentionService.close());
  await here.restart();
  return here;
}

/** Two peers with two measured devices each, and canaries beside each root. */
export async function keptDevices(t: Cleanups, changes?: Partial<RetentionServiceDeps>): Promise<KeptPlace> {
  const here = await keptPlace(t, changes);
  for (const peer of [mine, other])
    for (const device of ['kitchen', 'hall']) await plant(here.layout, keyOf(peer, device));
  await here.retentionService.retention.sweep();
  for (const name of ['beside', 'config/beside', 'config/.esphome/beside']) await here.canary(name);
  return here;
}
