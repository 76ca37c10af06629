/** A thousand devices, with ten thousand jobs in the list: what a start, a look and a sweep take. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { createReserve } from '../../src/disk/reserve.js';
import { isTerminal } from '../../src/jobs/record.js';
import { createJobRegistry, resultBytesOf } from '../../src/jobs/registry.js';
import { createMemoryStore } from '../../test/jobs/memory-store.js';
import { silentLog as log } from '../../src/log.js';
import { dashboardId, type RemoteKey } from '../../src/paths/index.js';
import { systemClock } from '../../src/async/clock.js';
import {
  openRetentionService,
  type RetentionService,
  type RetentionServiceDeps,
} from '../../src/retention/service.js';
import { exampleRecord } from '../../src/testing/job-store-suite.js';
import { pathsIn, realLeases } from '../../test/retention/kill-place.js';
import { keyOf } from '../../test/retention/place.js';
import { playedJobs } from '../../test/retention/played-jobs.js';
import type { Row } from '../transfer/table.js';
import { delaysOf, idleDelays, type Delays } from './loop-delay.js';
import { defaultOptions } from '../../test/support/options.js';

const peers = 10;
const devicesOfPeer = 100;
const filesOfDevice = 142;
const jobCount = 10_000;
const dayMs = 86_400_000;
const usages = 50;
/** Of all receivers that follow each other here. */
const jobsOfAll = manyJobs();

const keys: readonly RemoteKey[] = Array.from({ length: peers * devicesOfPeer }, (_, n) =>
  keyOf(dashboardId(`bench-peer-${n % peers}`), `device-${n}`),
);

export async function measureManyDevices(base: string): Promise<Row[]> {
  const { layout } = pathsIn(base);
  const { locksDir, trashDir, devicesDir } = layout;
  for (const directory of [locksDir, trashDir, devicesDir]) await mkdir(directory, { recursive: true });
  for (const key of keys) await plant(layout.subtree(key));
  const time = { aheadMs: 0 };
  const first = await open(base, time);
  const walk = await delaysOf(() => first.retention.sweep());
  await first.close();

  const opened: RetentionService[] = [];
  const start = await delaysOf(async () => opened.push(await open(base, time)));
  const { retention, close } = opened[0] as RetentionService;
  const usage = await delaysOf(async () => {
    for (let n = 0; n < usages; n += 1) await retention.usage();
  });
  const none = await delaysOf(() => retention.sweep());
  time.aheadMs = dayMs;
  await close();
  const last = await open(base, time);
  const all = await delaysOf(async () =>
    assert.equal((await last.retention.sweep()).removed.length, keys.length),
  );
  await last.close();
  const idle = await idleDelays(5_000);
  return [
    timeRow('1,000 devices: start', start.tookMs, 1_000),
    blockRow('1,000 devices: start, longest block', start, idle),
    timeRow('usage, each, beside 10,000 jobs', usage.tookMs / usages, 20),
    timeRow('sweep that measures all', walk.tookMs, 60_000),
    blockRow('sweep that measures all, longest block', walk, idle),
    timeRow('sweep that removes none', none.tookMs, 2_000),
    blockRow('sweep that removes none, longest block', none, idle),
    timeRow('sweep that removes all (142,000 files)', all.tookMs, 120_000),
    blockRow('sweep that removes all, longest block', all, idle),
    mostRow('sweep that removes all, p99.9', all, idle),
  ];
}

async function plant(subtree: string): Promise<void> {
  for (const name of ['config', 'storage', 'build/src', 'build/obj']) {
    await mkdir(join(subtree, name), { recursive: true });
  }
  const names = Array.from(
    { length: filesOfDevice - 2 },
    (_, n) => `build/${n % 2 ? 'src' : 'obj'}/file-${n}`,
  );
  for (const name of ['config/device.yaml', 'storage/device.json', ...names]) {
    await writeFile(join(subtree, name), name);
  }
}

async function open(base: string, time: { readonly aheadMs: number }): Promise<RetentionService> {
  const paths = pathsIn(base);
  return openRetentionService({
    ...{ paths, layout: paths.layout, log, retention: defaultOptions.retention },
    clock: { ...systemClock, wall: () => systemClock.wall() + time.aheadMs },
    jobs: jobsOfAll,
    reserve: createReserve([], log),
    underLease: realLeases(paths.layout.locksDir),
    ...{ resultTtlMs: 30 * dayMs, minFreeDiskBytes: 0 },
    tools: { list: async () => [], remove: async () => false },
  });
}

/** Of other devices of the same peers and of many others, as the real ones find them. */
function manyJobs(): RetentionServiceDeps['jobs'] {
  const ledger = createJobRegistry({
    store: createMemoryStore(),
    removeRest: async () => {},
    clock: systemClock,
    log,
  });
  for (let n = 0; n < jobCount; n += 1) {
    const key = keyOf(dashboardId(`bench-peer-${n % 100}`), `busy-${n}`);
    ledger.add(exampleRecord({ ...key, state: 'queued' }));
  }
  return {
    ...playedJobs(),
    list: () => ledger.all().map(({ record }) => record),
    resultBytes: () => resultBytesOf(ledger.all()),
    isBusy: ({ dashboardId: id, device }) =>
      ledger.of(id).some(({ record }) => record.device === device && !isTerminal(record)),
  };
}

function timeRow(what: string, ours: number, atMost: number): Row {
  return { what, ours, unit: 'ms', limit: { atMost } };
}

export function blockRow(what: string, { longestMs }: Delays, idle: Delays): Row {
  return { what, ours: longestMs, bare: idle.longestMs, unit: 'ms', limit: { atMost: 20 } };
}

function mostRow(what: string, { mostMs }: Delays, idle: Delays): Row {
  return { what, ours: mostMs, bare: idle.mostMs, unit: 'ms', limit: { atMost: 10 } };
}
