/**
 * The process that holds many jobs: `fill` takes them in, all waiting behind one that does not end, as bundles that are
 * complete; `open` starts on what the other has left. Tells its parent what that took.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';

import { systemClock } from '../../src/async/clock.js';
import { createMemoryQueue } from '../../src/jobs/queue.js';
import { openDiskStore } from '../../src/jobs/disk-store.js';
import type { RunningJob } from '../../src/jobs/build.js';
import type { JobRequest, Outcome } from '../../src/jobs/record.js';
import { createJobService } from '../../src/jobs/job-service.js';
import type { JobService } from '../../src/jobs/job-service.js';
import { stagedBundle } from '../../src/bundles/store.js';
import { silentLog } from '../../src/log.js';
import { dashboardId, deviceFromFile, fileName } from '../../src/paths/index.js';
import { waitFor } from '../../test/support/wait-for.js';
import { defaultOptions } from '../../test/support/options.js';

export interface StoreFigures {
  readonly ms: number;
  /** What the jobs have added to the process, in bytes. */
  readonly bytes: number;
}

const [step = '', jobsDir = '', count = '0'] = process.argv.slice(2);
const jobsOfPeer = 100;
const deadlineMs = 600_000;

async function open(): Promise<JobService> {
  return createJobService({
    ...defaultOptions,
    store: await openDiskStore({
      ...{ dir: jobsDir, presenceDir: join(jobsDir, '../presence'), watchMs: 10_000, log: silentLog },
    }),
    bundles: { keep: async (_id, staged) => staged, find: async () => null, remove: async () => {} },
    queue: createMemoryQueue({ slots: 1 }),
    choose: async () => null,
    run: untilStopped,
    openArtifacts: () => Promise.reject(new Error('there are no artifacts')),
    removeArtifacts: async () => {},
    jobsDir,
    ...{ clock: systemClock, log: silentLog },
  });
}

function untilStopped({ signal }: RunningJob): Promise<Outcome> {
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve({ to: 'cancelled', message: 'the benchmark ends' }));
  });
}

/** Starts on the jobs that were left: all of them must be there again. */
async function reopen(): Promise<JobService> {
  const jobs = await open();
  assert.equal(jobs.list().filter(({ bundle }) => bundle !== null).length, Number(count));
  return jobs;
}

async function fill(): Promise<JobService> {
  const jobs = await open();
  const wanted = Number(count);
  for (let n = 0; n < wanted; n += 1) {
    const directory = `/nowhere/${n}`;
    const remoteContent = { buildPath: false, remoteParts: false, webFiles: false };
    const configFilename = fileName(`device-${n}.yaml`);
    const manifest = { manifestVersion: 1, esphomeVersion: null, configFilename } as const;
    jobs.submit(
      requestOf(n),
      Promise.resolve(
        stagedBundle({
          directory,
          bytes: 1,
          members: 1,
          leftOut: [],
          remoteContent,
          manifest,
          contentSha256: 'c0'.repeat(32),
        }),
      ),
    );
    // As bundles arrive: one after the other.
    if (n % jobsOfPeer === 0)
      await waitFor(() => jobs.queueStatus().queueDepth >= n - jobsOfPeer, { deadlineMs });
  }
  await waitFor(() => jobs.queueStatus().queueDepth === wanted - 1, { deadlineMs, what: 'a full queue' });
  return jobs;
}

function requestOf(n: number): JobRequest {
  const file = fileName(`device-${n}.yaml`);
  const peer = Math.floor(n / jobsOfPeer);
  return {
    ...{ dashboardId: dashboardId(`bench-peer-${peer}`), peerLabel: `Peer ${peer}`, peerJobId: `job-${n}` },
    lane: 1,
    ...{ file, device: deviceFromFile(file), target: 'compile', bundleSha256: 'ab'.repeat(32) },
    ...{ targetVersion: '', skipBootloader: false, deviceName: 'kitchen', deviceFriendlyName: 'Kitchen' },
  };
}

function memory(): number {
  globalThis.gc?.();
  return process.memoryUsage.rss();
}

const before = memory();
const begin = performance.now();
const jobs = await (step === 'fill' ? fill() : reopen());
const ms = performance.now() - begin;
process.send?.({ ms, bytes: memory() - before } satisfies StoreFigures);
// Those that were taken in last are still on their way to the disk.
if (step === 'fill') await jobs.close();
process.exit();
