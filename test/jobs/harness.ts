/**
 * Jobs with the real runner and a world that is made of promises: every step that a job takes passes a gate, which
 * a test may hold shut, so that each moment can be reached and kept. What must never happen is asserted in the
 * world itself: two builds of one device at once, a lease that is not given back, an end that is told twice.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';

import { systemClock } from '../../src/async/clock.js';
import type { CompileRequest, CompileResult } from '../../src/compile/compile.js';
import { noMarks } from '../../src/compile/output.js';
import { ReceiverError } from '../../src/errors.js';
import { isTerminal, type JobRecord } from '../../src/jobs/record.js';
import { createJobService, type JobServiceDeps } from '../../src/jobs/job-service.js';
import type { JobService } from '../../src/jobs/job-service.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { createMemoryQueue } from '../../src/jobs/queue.js';
import { chooseFor, type ChooseEsphome } from '../../src/jobs/choose-esphome.js';
import { runJob, type RunnerDeps } from '../../src/jobs/runner.js';
import type { JobStore } from '../../src/jobs/store.js';
import { createMemoryStore } from './memory-store.js';
import { silentLog } from '../../src/log.js';
import { createPaths } from '../../src/paths/index.js';
import { emptyDisk, keptOn, type Disk } from './fake-disk.js';
import { fakeLease, type FakeLease } from './fake-lease.js';
import { defaultOptions } from '../support/options.js';

/**
 * The steps of a compile in their order; `put:` is the store, `end` of it the last record. A job that waits for no slot
 * is not stored as queued. That it runs is written while it goes on, up to `beforeStart`.
 */
export const moments = [
  ...[
    'put:receiving',
    'keep',
    'chooseEsphome',
    'slot',
    'acquireLease',
    'installBundle',
    'openBuildDir',
    'beforeStart',
    'put:running',
  ],
  ...['precheck', 'compile', 'recordBuild', 'closeBuildDir', 'verify', 'storeArtifacts', 'release'],
] as const;
export type Moment =
  | (typeof moments)[number]
  | ('put:queued' | 'put:end' | 'discard' | 'removeArtifacts' | 'copyArtifacts' | 'clean' | 'find');

export const cleanResult: CompileResult = Object.freeze({
  ...{ exitCode: 0, signal: null, cancelled: false, timedOut: false, silent: false },
  ...{ leaseLost: false, forced: false },
  marks: noMarks,
});

export interface World {
  readonly jobs: JobService;
  readonly store: JobStore;
  readonly events: JobEvent[];
  /** Names of the steps that were taken, in order. */
  readonly steps: string[];
  /** What was logged as an error. */
  readonly errors: string[];
  /** Leases that are out, by device, the newest last. */
  readonly leases: Map<string, FakeLease>;
  /** The number of the last lease, by device. */
  readonly fences: Map<string, number>;
  /** Ids of jobs whose artifacts are kept. */
  readonly artifacts: Set<string>;
  /** Staging directories that are not used up or removed. */
  readonly staging: Set<string>;
  readonly disk: Disk;
  /** From now on nothing is done or stored any more, and all that was the process's is gone. */
  crash(): Promise<void>;
  /** Resolves with the job's record when its terminal event has come. */
  ended(id: string): Promise<JobRecord>;
  /** Takes a step through the gate. */
  pass(moment: Moment, signal?: AbortSignal): Promise<void>;
  /** Asserts what must hold when no job is left. */
  assertAtRest(): void;
}

/** What a job does to the world, from the choice of its ESPHome to its packed result. */
interface JobSteps extends RunnerDeps {
  readonly chooseEsphome: ChooseEsphome;
}

export interface WorldOptions {
  readonly jobsDir: string;
  /** Called at every step; the step goes on when it resolves. */
  readonly gate?: (moment: Moment, signal?: AbortSignal) => Promise<void>;
  readonly run?: Partial<JobSteps>;
  readonly deps?: Partial<JobServiceDeps>;
  readonly slots?: number;
  readonly store?: JobStore;
  /** Of the world before this one. */
  readonly disk?: Disk;
}

export async function createWorld(options: WorldOptions): Promise<World> {
  const { gate = async () => {}, jobsDir, disk = emptyDisk() } = options;
  const [steps, events]: [string[], JobEvent[]] = [[], []];
  const leases = new Map<string, FakeLease>();
  const { artifacts, staging, installed, fences } = disk;
  const building = new Set<string>();
  const [faults, errors]: [string[], string[]] = [[], []];
  let chosen = 0;
  const log = { ...silentLog, error: (_: unknown, text: string) => void errors.push(text) };
  const store = options.store ?? createMemoryStore(disk.place);
  const queue = createMemoryQueue({ slots: options.slots ?? 1 });

  let hasCrashed = false;

  async function pass(moment: Moment, signal?: AbortSignal): Promise<void> {
    if (!hasCrashed) {
      steps.push(moment);
      await gate(moment, signal);
    }
    // Not before, for the gate may be what the crash comes at.
    if (hasCrashed) await new Promise(() => {});
  }

  /** What `runCompile` does under signals, without a process. */
  async function fakeRun(
    moment: Moment,
    { signal, leaseSignal, cwd, beforeStart }: FakeRun,
  ): Promise<CompileResult> {
    await beforeStart?.(session);
    if (building.has(cwd)) faults.push('two builds of one device at once');
    building.add(cwd);
    await pass(moment, AbortSignal.any([signal, leaseSignal])).finally(() => building.delete(cwd));
    const [cancelled, leaseLost] = [signal.aborted, leaseSignal.aborted];
    return cancelled || leaseLost ? { ...cleanResult, exitCode: null, cancelled, leaseLost } : cleanResult;
  }

  const runner: JobSteps = {
    paths: createPaths({ configDir: join(jobsDir, 'config') }),
    async chooseEsphome() {
      await pass('chooseEsphome');
      chosen += 1;
      return {
        ...{ command: ['/bin/esphome'], version: '2026.10.0', confirm: async () => '2026.10.0' },
        release: async () => void (chosen -= 1),
      };
    },
    composeEnvironment: () => ({}),
    async acquireLease({ key, signal }) {
      const name = `${key.dashboardId} ${key.device}`;
      await pass('acquireLease', signal);
      signal.throwIfAborted();
      while (leases.has(name)) await (hasCrashed ? new Promise(() => {}) : turn());
      signal.throwIfAborted();
      const fence = (fences.get(name) ?? 0) + 1;
      fences.set(name, fence);
      const lease = fakeLease(fence, pass, async () => {
        await pass('release');
        leases.delete(name);
      });
      leases.set(name, lease);
      return lease;
    },
    async installBundle({ directory }, key) {
      await pass('installBundle');
      const name = `${key.dashboardId} ${key.device}`;
      if (!staging.delete(directory) && installed.get(name) !== directory)
        faults.push('a bundle is not there');
      installed.set(name, directory);
    },
    async openBuildDir() {
      await pass('openBuildDir');
      return { isEmptied: false, close: () => pass('closeBuildDir') };
    },
    cleanBuildDir: () => pass('clean'),
    async precheck(request) {
      const result = await fakeRun('precheck', request);
      return result.exitCode === 0 ? null : result;
    },
    async compile(request) {
      request.onLine('[1/2] CXX a.o\n');
      return fakeRun('compile', request);
    },
    verify: () => pass('verify'),
    async storeArtifacts(id) {
      await pass('storeArtifacts');
      artifacts.add(id);
      return { bytes: 3, sha256: 'ab'.repeat(32), firmwareOffset: '0x0' };
    },
    async copyArtifacts(from, id) {
      await pass('copyArtifacts');
      if (!artifacts.has(from))
        throw new ReceiverError('NOT_FOUND', 'the files of this job are no longer stored');
      artifacts.add(id);
      return { bytes: 3, sha256: 'ab'.repeat(32), firmwareOffset: '0x0' };
    },
    tools: { compile: ({ lease }, run) => run(lease) },
    resultCache: false,
    compileTimeoutMs: 1_000,
    silenceTimeoutMs: 1_000,
    log,
    ...options.run,
  };

  const jobs = await createJobService({
    ...defaultOptions,
    store: {
      ...store,
      async put(record) {
        await pass(isTerminal(record) ? 'put:end' : (`put:${record.state}` as Moment));
        await store.put(record);
      },
    },
    queue: {
      ...queue,
      async enter(id, ticket) {
        await pass('slot', ticket.signal);
        return queue.enter(id, ticket);
      },
    },
    bundles: keptOn(disk, pass),
    choose: (job) => chooseFor(job, runner.chooseEsphome),
    run: (job, staged, esphome) => runJob(job, staged, esphome, runner),
    openArtifacts: ({ artifacts: facts }) => {
      assert.ok(facts);
      return Promise.resolve({ ...facts, read: async function* () {} });
    },
    async removeArtifacts(id) {
      await pass('removeArtifacts');
      artifacts.delete(id);
    },
    jobsDir,
    ...{ clock: systemClock, log },
    ...options.deps,
  });
  jobs.subscribe((event) => {
    events.push(event);
    if (event.type !== 'state' || !isTerminal(event.job)) return;
    if (queue.status().running.includes(event.job.id))
      faults.push('an end was told before the slot was free');
  });

  return {
    ...{ jobs, store, events, steps, errors, leases, fences, artifacts, staging, disk, pass },
    async crash() {
      hasCrashed = true;
      await store.close();
    },
    ended: (id) =>
      new Promise((resolve) => {
        const stop = jobs.subscribe((event) => {
          if (event.type !== 'state' || event.job.id !== id || !isTerminal(event.job)) return;
          stop();
          resolve(event.job);
        });
      }),
    assertAtRest() {
      assert.deepEqual(faults, []);
      assert.deepEqual(queue.status(), { running: [], waiting: [] });
      assert.deepEqual([...leases.keys()], [], 'a lease was not given back');
      assert.equal(chosen, 0, 'an ESPHome was not let go');
      assert.deepEqual([...staging], [], 'a bundle was left behind');
      for (const job of jobs.list()) assertToldInOrder(job, events);
      const completed = jobs.list().filter(({ artifacts: facts }) => facts !== null);
      assert.deepEqual([...artifacts].toSorted(), completed.map(({ id }) => id).toSorted());
    },
  };
}

type FakeRun = Pick<CompileRequest, 'signal' | 'leaseSignal' | 'cwd' | 'beforeStart'>;

const session = { pid: 1, startTime: 1, bootId: '', marker: '' };

/** Each state once and in order, exactly one of them terminal, and nothing after it; or none, if a restart has ended it. */
function assertToldInOrder(job: JobRecord, events: readonly JobEvent[]): void {
  const own = events.filter((event) => event.type !== 'queue').filter((event) => event.job.id === job.id);
  const states = own.filter((event) => event.type === 'state').map((event) => event.job.state);
  const places = states.map((state) => ['queued', 'running', job.state].indexOf(state));
  assert.ok(isTerminal(job), 'a job has not ended');
  assert.deepEqual(
    places,
    [...new Set(places)].toSorted((a, b) => a - b),
    `its states were told as ${states.join()}`,
  );
  const last = own.at(-1);
  assert.ok(!last || (last.type === 'state' && isTerminal(last.job)), 'something was told after the end');
}
