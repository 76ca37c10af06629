/** Why a job waits, in its record, its events and its output, and the host's own work in the queue. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { systemClock } from '../../src/async/clock.js';
import { ReceiverError, isReceiverError } from '../../src/errors.js';
import { withAdmission } from '../../src/jobs/admission.js';
import type { JobRecord } from '../../src/jobs/record.js';
import type { JobEvent } from '../../src/jobs/lifecycle.js';
import { createMemoryQueue } from '../../src/jobs/queue.js';
import { waitingText } from '../../src/jobs/waiting.js';
import { dashboardId } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';
import { bundleIn, deferred, exampleRequest } from './examples.js';
import { cleanResult, createWorld, type World, type WorldOptions } from './harness.js';

interface Held extends World {
  /** Lets all compiles go on, also later ones. */
  letGo(): void;
}

/** Compiles stand still until they are let go or cancelled. */
async function standing(t: TestContext, options: Partial<WorldOptions> = {}): Promise<Held> {
  const gone = deferred();
  const world = await createWorld({
    jobsDir: await tempDir(t),
    async gate(at, signal) {
      if (at !== 'compile') return;
      await Promise.race([
        gone.promise,
        new Promise((resolve) => signal?.addEventListener('abort', resolve)),
      ]);
    },
    ...options,
  });
  return { ...world, letGo: () => gone.resolve() };
}

function submit(
  world: World,
  device: string,
  label: string,
  facts: Parameters<typeof exampleRequest>[0] = {},
): string {
  const request = exampleRequest({
    ...{
      name: `${device}.yaml`,
      peerJobId: device,
      peerLabel: label,
      dashboardId: dashboardId(`dashboard_${label}`),
    },
    ...facts,
  });
  return world.jobs.submit(request, Promise.resolve(bundleIn(world))).id;
}

const textOf = (job: Pick<JobRecord, 'waiting'> | undefined): string | null | undefined =>
  job && job.waiting && waitingText(job.waiting);

function told(events: readonly JobEvent[], id: string): (string | null | undefined)[] {
  return events.flatMap((event) =>
    event.type === 'waiting' && event.job.id === id ? [textOf(event.job)] : [],
  );
}

function lines(events: readonly JobEvent[]): string[] {
  return events.flatMap((event) => (event.type === 'output' ? [event.line] : []));
}

test('A job that waits for a slot names the jobs before it, and its peer receives none of that', async (t) => {
  const world = await standing(t);
  const ids = [submit(world, 'one', 'Home'), submit(world, 'two', 'Home'), submit(world, 'three', 'Cabin')];
  await waitFor(
    () =>
      world.jobs.queueStatus().queueDepth === 2 && world.steps.filter((step) => step === 'slot').length === 3,
  );
  const seen = (): unknown[] => world.jobs.list().map(textOf);
  await waitFor(() => world.jobs.list()[0]?.state === 'running');
  assert.deepEqual(seen(), [null, 'behind 1 job of "Home"', 'behind 2 jobs of "Home"']);
  assert.deepEqual(
    ids.map((id) => textOf(world.jobs.get(id))),
    seen(),
  );
  assert.equal(world.jobs.get('unknown'), undefined);
  assert.ok(world.jobs.cancel(ids[0] ?? ''));
  await waitFor(() => world.jobs.get(ids[1] ?? '')?.state === 'running');
  assert.deepEqual(seen(), [null, null, 'behind 1 job of "Home"']);
  world.letGo();
  await waitFor(() => world.jobs.queueStatus().idle);
  assert.ok(!lines(world.events).join('').includes('Home'));
  assert.deepEqual(seen(), [null, null, null]);
  world.assertAtRest();
});

test("The host's own build waits in the same queue, and everybody sees that the queue is busy", async (t) => {
  const world = await standing(t);
  const slot = await world.jobs.enqueueLocal('garage.yaml');
  assert.deepEqual(world.jobs.queueStatus(), { idle: false, running: true, queueDepth: 0, freeSlots: 0 });
  const id = submit(world, 'one', 'Home');
  await waitFor(() => textOf(world.jobs.get(id)) === 'behind 1 job of this host');
  const second = world.jobs.enqueueLocal('porch.yaml');
  await turn();
  assert.deepEqual(
    world.jobs.local().map((job) => [job.configuration, job.state, textOf(job)]),
    [
      ['garage.yaml', 'running', null],
      ['porch.yaml', 'queued', 'behind 1 job of this host and 1 of "Home"'],
    ],
  );
  assert.deepEqual(world.jobs.queueStatus(), { idle: false, running: true, queueDepth: 2, freeSlots: 0 });
  slot.release();
  slot.release();
  await waitFor(() => world.jobs.get(id)?.state === 'running');
  assert.equal(textOf(world.jobs.local()[0]), 'behind 1 job of "Home"');
  world.letGo();
  (await second).release();
  assert.deepEqual([world.jobs.local(), world.jobs.queueStatus().idle], [[], true]);
  const statuses = world.events.flatMap((event) => (event.type === 'queue' ? [event.status] : []));
  assert.deepEqual(statuses.slice(0, 2), [
    { idle: false, running: false, queueDepth: 1, freeSlots: 1 },
    { idle: false, running: true, queueDepth: 0, freeSlots: 0 },
  ]);
  assert.deepEqual(statuses.at(-1), { idle: true, running: false, queueDepth: 0, freeSlots: 1 });
  world.assertAtRest();
});

test('A host build that is cancelled or stopped while it waits has no slot and no place', async (t) => {
  const world = await standing(t);
  const held = await world.jobs.enqueueLocal('garage.yaml');
  const controller = new AbortController();
  const waiting = world.jobs.enqueueLocal('porch.yaml', { signal: controller.signal });
  const reason = new Error('the page was closed');
  controller.abort(reason);
  await assert.rejects(waiting, reason);
  await assert.rejects(world.jobs.enqueueLocal('porch.yaml', { signal: controller.signal }), reason);
  assert.equal(world.jobs.local().length, 1);
  const stopped = assert.rejects(world.jobs.enqueueLocal('hall.yaml'), { code: 'CANCELLED' });
  await world.jobs.close();
  await stopped;
  await assert.rejects(world.jobs.enqueueLocal('hall.yaml'), (error) => isReceiverError(error, 'STATE'));
  assert.deepEqual(
    world.jobs.local().map(({ configuration }) => configuration),
    ['garage.yaml'],
    'what runs is the business of the host',
  );
  held.release();
  world.assertAtRest();
});

test('A job that waits for memory says so once: to the operator with figures, to its peer without', async (t) => {
  let memory = 3.1e9;
  const queue = withAdmission(createMemoryQueue({ slots: 2 }), {
    ...{ minFreeMemoryBytes: 3.2e9, minFreeDiskBytes: 1e9, recheckMs: 2, growthMs: 0 },
    ...{ freeMemory: () => memory, freeDisk: () => Promise.resolve(null), clock: systemClock },
  });
  const world = await standing(t, { deps: { queue } });
  submit(world, 'one', 'Home');
  const id = submit(world, 'two', 'Cabin');
  await waitFor(() => told(world.events, id).length > 2);
  assert.equal(textOf(world.jobs.get(id)), 'memory 3.1 of 4 GB needed');
  assert.equal(world.jobs.get(id)?.state, 'queued');
  memory = 4e9;
  await waitFor(() => world.jobs.get(id)?.state === 'running');
  assert.equal(textOf(world.jobs.get(id)), null);
  const waits = lines(world.events).filter((line) => line.startsWith('Waiting'));
  assert.deepEqual(waits, ['Waiting until the build server has more free memory.\n']);
  world.letGo();
  await waitFor(() => world.jobs.queueStatus().idle);
  assert.deepEqual(queue.status(), { running: [], waiting: [] });
});

test('On a nearly full disk a job fails with the reason resource and a message, and releases its slot', async (t) => {
  const queue = withAdmission(createMemoryQueue({ slots: 1 }), {
    ...{ minFreeMemoryBytes: 0, minFreeDiskBytes: 1e9 },
    ...{ freeMemory: () => null, freeDisk: () => Promise.resolve(4e8), clock: systemClock },
  });
  const world = await standing(t, { deps: { queue } });
  const { failureReason, errorMessage } = await world.ended(submit(world, 'one', 'Home'));
  assert.equal(failureReason, 'resource');
  assert.match(errorMessage, /nearly full: 0\.4 GB free, a build needs at least 1 GB$/);
  await assert.rejects(world.jobs.enqueueLocal('garage.yaml'), { code: 'RESOURCE' });
  assert.deepEqual([queue.status(), world.jobs.local()], [{ running: [], waiting: [] }, []]);
  world.assertAtRest();
});

test('A job whose device or tools are in use says so until it has them', async (t) => {
  const [device, tools] = [deferred(), deferred()];
  const world = await standing(t, {
    run: {
      async acquireLease({ onBlocked, signal }) {
        onBlocked?.();
        onBlocked?.();
        await device.promise;
        return {
          ...{
            fence: 1,
            signal: new AbortController().signal,
            recordBuild: async () => {},
            confirm: async () => {},
          },
          ...{ publish: (act) => act(), release: async () => signal.throwIfAborted() },
        };
      },
      tools: {
        async compile({ onWaiting }) {
          onWaiting({ for: 'toolchain', platform: 'esp32' });
          await tools.promise;
          onWaiting(null);
          return cleanResult;
        },
      },
    },
  });
  const id = submit(world, 'one', 'Home');
  await waitFor(() => textOf(world.jobs.get(id)) === 'device busy');
  assert.equal(world.jobs.get(id)?.state, 'running');
  device.resolve();
  await waitFor(() => textOf(world.jobs.get(id)) === 'toolchain being installed');
  tools.resolve();
  await world.ended(id);
  assert.deepEqual(told(world.events, id), ['device busy', null, 'toolchain being installed', null]);
  assert.deepEqual(lines(world.events), ['Waiting until the directory of this device is free.\n']);
});

test('A job that ends while it waits does not go on waiting', async (t) => {
  const world = await standing(t, {
    run: {
      acquireLease: ({ onBlocked }) => {
        onBlocked?.();
        return Promise.reject(new ReceiverError('LOCK_TIMEOUT', 'the lock was not free in time'));
      },
    },
  });
  const { state, waiting } = await world.ended(submit(world, 'one', 'Home'));
  assert.deepEqual([state, waiting], ['failed', null]);
});
