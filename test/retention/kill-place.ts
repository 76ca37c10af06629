/** The directories shared by the processes of the kill tests, and a retention service on them. */
import { join } from 'node:path';

import { createReserve } from '../../src/disk/reserve.js';
import { acquireLease } from '../../src/locks/lease.js';
import { silentLog as log } from '../../src/log.js';
import { createPaths } from '../../src/paths/index.js';
import { systemClock } from '../../src/async/clock.js';
import type { UnderLease } from '../../src/retention/sweep.js';
import { openRetentionService, type RetentionService } from '../../src/retention/service.js';
import { fast as timing } from '../locks/helpers.js';
import { keyOf, mine, other } from './place.js';
import { playedJobs } from './played-jobs.js';
import { defaultOptions } from '../support/options.js';

export const keys = [mine, other].flatMap((peer) =>
  ['kitchen', 'hall', 'attic'].map((name) => keyOf(peer, name)),
);

export const pathsIn = (base: string): ReturnType<typeof createPaths> =>
  createPaths({ configDir: join(base, 'config') });

export function realLeases(locksDir: string): UnderLease {
  return async (key, reason, work, deadlineMs = 10_000) => {
    const lease = await acquireLease({ locksDir, key, reason, deadlineMs, timing, log });
    try {
      await lease.confirm();
      return await work(lease);
    } finally {
      await lease.release();
    }
  };
}

/** Its builds expire at once. */
export async function impatientKeeper(base: string): Promise<RetentionService> {
  const paths = pathsIn(base);
  const { layout } = paths;
  return openRetentionService({
    ...{ paths, layout, log, clock: systemClock, jobs: playedJobs(), reserve: createReserve([], log) },
    underLease: realLeases(layout.locksDir),
    retention: { ...defaultOptions.retention, buildTtlMs: 0 },
    ...{ resultTtlMs: 2_592_000_000, minFreeDiskBytes: 0 },
    tools: { list: async () => [], remove: async () => false },
  });
}
