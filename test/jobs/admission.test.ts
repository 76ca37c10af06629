/** Admission with every value of memory and disk forced, and time as the test sets it. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import { systemClock } from '../../src/async/clock.js';
import { isReceiverError } from '../../src/errors.js';
import { withAdmission } from '../../src/jobs/admission.js';
import { createMemoryQueue, type JobQueue, type QueueTicket, type Slot } from '../../src/jobs/queue.js';
import { waitingText, type Shortage } from '../../src/jobs/waiting.js';
import { jobQueueSuite } from '../../src/testing/index.js';
import { manualClock, type ManualClock } from '../async/manual-clock.js';

const giga = 1e9;

interface Rig {
  readonly queue: JobQueue;
  memory: number | null;
  disk: number | null;
  readonly clock: ManualClock;
  /** How often the disk was asked. */
  looks: number;
}

/** Needs 4 GB of memory and 1 GB of disk; a build has grown after 20 s. */
function rig({ slots = 4, recheckMs = 60_000 } = {}): Rig {
  const state = { memory: 100 * giga, disk: 100 * giga, clock: manualClock(), looks: 0 };
  const queue = withAdmission(createMemoryQueue({ slots }), {
    ...{ minFreeMemoryBytes: 4 * giga, minFreeDiskBytes: giga, recheckMs, growthMs: 20_000 },
    freeMemory: () => state.memory,
    async freeDisk() {
      state.looks += 1;
      return Promise.resolve(state.disk);
    },
    clock: state.clock,
  });
  return Object.assign(state, { queue });
}

interface Entered {
  slot: Slot | null;
  error: unknown;
  readonly told: Shortage[];
  readonly controller: AbortController;
}

/** Enters and lets everything happen that can. A job that still waits leaves when the test ends. */
async function enter(
  t: TestContext,
  { queue }: Rig,
  id: string,
  facts: Partial<QueueTicket> = {},
): Promise<Entered> {
  const controller = new AbortController();
  const entered: Entered = { slot: null, error: null, told: [], controller };
  const onShort = (shortage: Shortage): void => void entered.told.push(shortage);
  queue.enter(id, { peer: 'peer_one', target: 'compile', signal: controller.signal, onShort, ...facts }).then(
    (slot) => (entered.slot = slot),
    (error: unknown) => (entered.error = error),
  );
  t.after(() => controller.abort());
  await turn();
  return entered;
}

function release({ slot }: Entered): void {
  slot?.release();
}

jobQueueSuite('A queue with admission behind it', (_, options) =>
  Promise.resolve(
    withAdmission(createMemoryQueue(options), {
      ...{ minFreeMemoryBytes: giga, minFreeDiskBytes: giga },
      ...{ freeMemory: () => null, freeDisk: () => Promise.resolve(null), clock: systemClock },
    }),
  ),
);

test('A build begins beside another one only with enough memory, and says what it waits for', async (t) => {
  const machine = rig();
  machine.memory = 3.1 * giga;
  const first = await enter(t, machine, 'a');
  assert.ok(first.slot, 'alone it always begins');
  machine.clock.advance(30_000);
  const second = await enter(t, machine, 'b');
  assert.equal(second.slot, null);
  assert.deepEqual(second.told.map(waitingText), ['memory 3.1 of 5 GB needed']);
  first.slot.release();
  await turn();
  assert.ok(second.slot, 'the only build begins whatever is free');
  assert.deepEqual(first.told, []);
});

test('Admission reopens only a quarter above the threshold, by a timer that stops when no job waits', async (t) => {
  const machine = rig({ recheckMs: 2_000 });
  await enter(t, machine, 'a');
  machine.clock.advance(30_000);
  for (const resource of ['memory', 'disk'] as const) {
    const mark = resource === 'memory' ? 4 * giga : giga;
    machine[resource] = mark - 1;
    const waiting = await enter(t, machine, resource);
    for (const free of [mark, mark * 1.25 - 1]) {
      machine[resource] = free;
      machine.clock.advance(2_000);
      await turn();
      assert.equal(waiting.told.at(-1)?.freeBytes, free);
    }
    assert.equal(waiting.slot, null);
    assert.deepEqual(waiting.told.at(-1), {
      for: resource,
      freeBytes: mark * 1.25 - 1,
      neededBytes: mark * 1.25,
    });
    machine[resource] = mark * 1.25;
    machine.clock.advance(2_000);
    await turn();
    assert.ok(waiting.slot);
    machine.clock.advance(30_000);
    machine[resource] = mark;
    assert.ok((await enter(t, machine, `${resource} again`)).slot, 'open again, the mark itself is enough');
    machine.clock.advance(30_000);
    release(waiting);
    machine[resource] = 100 * giga;
  }
  assert.equal(machine.clock.waiting, 0, 'nobody waits, and it still looks');
});

test('Builds that start together count with the memory that each will use', async (t) => {
  const machine = rig();
  machine.memory = 11 * giga;
  const builds = [await enter(t, machine, 'a'), await enter(t, machine, 'b'), await enter(t, machine, 'c')];
  assert.deepEqual(
    builds.map(({ slot }) => slot !== null),
    [true, true, false],
  );
  machine.clock.advance(20_000);
  builds[1]?.slot?.release();
  await turn();
  assert.ok(builds[2]?.slot, 'what runs for a while has taken its memory');
});

test('A job that waits for memory keeps its place before later ones', async (t) => {
  const machine = rig({ slots: 3 });
  const first = await enter(t, machine, 'a');
  machine.memory = 0;
  const second = await enter(t, machine, 'b');
  const third = await enter(t, machine, 'c', { peer: 'peer_two' });
  assert.deepEqual(machine.queue.status(), { running: ['a', 'b', 'c'], waiting: [] });
  first.slot?.release();
  await turn();
  assert.deepEqual([second.slot !== null, third.slot], [true, null]);
  assert.equal(third.told.length > 0, true);
});

test('On a nearly full disk a build waits beside others, and alone it fails and says why', async (t) => {
  const machine = rig({ slots: 2 });
  const first = await enter(t, machine, 'a');
  machine.disk = 0.45 * giga;
  const second = await enter(t, machine, 'b');
  assert.deepEqual(second.told.map(waitingText), ['disk 0.4 of 1.3 GB needed']);
  const cleaning = await enter(t, machine, 'c', { target: 'clean' });
  first.slot?.release();
  await turn();
  assert.ok(isReceiverError(second.error, 'RESOURCE'));
  assert.equal(
    second.error.message,
    'the disk of the build server is nearly full: 0.4 GB free, a build needs at least 1 GB',
  );
  assert.ok(cleaning.slot, 'a clean makes room and needs none');
  machine.disk = giga;
  assert.ok((await enter(t, machine, 'd')).slot, 'the floor itself is enough for the only build');
});

test('Unknown values and disabled checks delay no build', async (t) => {
  const machine = rig();
  [machine.memory, machine.disk] = [null, null];
  const builds = [await enter(t, machine, 'a'), await enter(t, machine, 'b')];
  assert.ok(builds.every(({ slot }) => slot !== null));
  const off = withAdmission(createMemoryQueue({ slots: 2 }), {
    ...{ minFreeMemoryBytes: 0, minFreeDiskBytes: 0 },
    ...{ freeMemory: () => 0, freeDisk: () => Promise.resolve(0), clock: systemClock },
  });
  const { signal } = new AbortController();
  for (const id of ['a', 'b']) await off.enter(id, { peer: 'peer_one', target: 'compile', signal });
});

test('A job that is cancelled while it waits for memory releases its slot, and the checks stop', async (t) => {
  const machine = rig({ slots: 2 });
  const first = await enter(t, machine, 'a');
  machine.memory = 0;
  const second = await enter(t, machine, 'b');
  const reason = new Error('no longer wanted');
  second.controller.abort(reason);
  await turn();
  assert.equal(second.error, reason);
  assert.deepEqual(machine.queue.status(), { running: ['a'], waiting: [] });
  first.slot?.release();
  first.slot?.release();
  assert.deepEqual(machine.queue.status(), { running: [], waiting: [] });
  assert.ok((await enter(t, machine, 'c')).slot);
});
