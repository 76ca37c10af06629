/**
 * Any interleaving of submitting, cancelling, failing, losing leases, and of crashes, stops and restarts of the
 * receiver: fast-check decides which of the steps that wait goes on next, and prints the order when a rule is broken.
 */
import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';

import fc from 'fast-check';

import { ReceiverError } from '../../src/errors.js';
import { isTerminal } from '../../src/jobs/record.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { bundleIn, exampleRequest } from './examples.js';
import { emptyDisk, type Disk } from './fake-disk.js';
import { cleanResult, createWorld, type World } from './harness.js';

const actNames = [
  ...(['submit', 'submit', 'submit', 'submitBad', 'clean', 'cancel', 'cancel', 'lose'] as const),
  ...(['cancelByPeer', 'cancelAllOf', 'crash', 'crash', 'stop'] as const),
];

interface Act {
  readonly act: (typeof actNames)[number];
  readonly peer: number;
  readonly device: number;
  readonly which: number;
}

const act: fc.Arbitrary<Act> = fc.record({
  act: fc.constantFrom(...actNames),
  ...{ peer: fc.nat(1), device: fc.nat(1), which: fc.nat(9) },
});

const peers = ['peer_one', 'peer_two'].map(dashboardId);
const names = ['kitchen.yaml', 'bath.yaml'];

/** One machine: receivers that follow each other on one disk. */
interface Machine {
  readonly disk: Disk;
  readonly worlds: World[];
  readonly acknowledged: Set<string>;
  /** What has to be waited for; an act cannot wait for steps that the scheduler has yet to let go. */
  pending: Promise<unknown>[];
  /** While one receiver stops and the next has not begun. */
  isStopping: boolean;
  start(): Promise<void>;
}

/** Checks the property `numRuns` times. `jobsDir` is for the logs. */
export async function anyInterleaving(jobsDir: string, numRuns: number): Promise<void> {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(act, { minLength: 1, maxLength: 14 }),
      fc.array(fc.nat(5), { minLength: 6, maxLength: 6 }),
      fc.integer({ min: 1, max: 3 }),
      async (scheduler, wishes, results, slots) => {
        const machine = createMachine(jobsDir, scheduler, results, slots);
        await machine.start();
        const acts = scheduler.scheduleSequence(
          wishes.map((wish) => ({ label: wish.act, builder: () => perform(machine, wish) })),
        );
        await scheduler.waitFor(acts.task);
        await scheduler.waitFor(rest(machine));
        assertKept(machine);
      },
    ),
    { numRuns },
  );
}

function createMachine(
  jobsDir: string,
  scheduler: fc.Scheduler,
  results: readonly number[],
  slots: number,
): Machine {
  const disk = emptyDisk();
  let runs = 0;
  const machine: Machine = {
    ...{ disk, worlds: [], acknowledged: new Set(), pending: [], isStopping: false },
    async start() {
      const world = await createWorld({
        ...{ jobsDir, slots, disk },
        async gate(moment) {
          await scheduler.schedule(Promise.resolve(), moment);
        },
        run: {
          resultCache: true,
          async verify() {
            await world.pass('verify');
            runs += 1;
            if (results[runs % results.length] === 0) throw new ReceiverError('WROTE_ELSEWHERE', 'away');
          },
          async precheck() {
            return results[runs % results.length] === 1 ? { ...cleanResult, exitCode: 2 } : null;
          },
        },
      });
      machine.worlds.push(world);
    },
  };
  return machine;
}

async function perform(machine: Machine, { act: what, peer, device, which }: Act): Promise<void> {
  if (machine.isStopping) return;
  const world = now(machine);
  const { jobs, leases } = world;
  const id = peers[peer] as DashboardId;
  const all = jobs.list();
  const job = all[which % Math.max(1, all.length)];
  const request = exampleRequest({
    ...{ dashboardId: id, name: names[device] as string, target: what === 'clean' ? 'clean' : 'compile' },
    peerJobId: `job-${which}`,
  });
  const submit = (intake: Parameters<typeof jobs.submit>[1]): void => {
    const record = jobs.submit(request, intake, () => machine.acknowledged.add(record.id));
  };
  if (what === 'submit' || what === 'clean') submit(Promise.resolve(bundleIn(world)));
  if (what === 'submitBad') submit(Promise.reject(new ReceiverError('BUNDLE', 'bad')));
  if (what === 'cancel' && job) assert.equal(jobs.cancel(job.id), !isTerminal(job));
  if (what === 'lose') [...leases.values()][which % Math.max(1, leases.size)]?.lose();
  if (what === 'cancelByPeer') jobs.cancelByPeer(id, `job-${which}`);
  if (what === 'cancelAllOf') machine.pending.push(jobs.cancelAllOf(id));
  if (what === 'stop') {
    machine.isStopping = true;
    const restarted = jobs.close().then(machine.start);
    machine.pending.push(restarted.then(() => (machine.isStopping = false)));
  }
  if (what === 'crash') {
    await world.crash();
    machine.pending = [];
    // Nobody's work any more, as recovery sees it.
    for (const name of world.staging) if (name.startsWith('/staging/')) world.staging.delete(name);
    await machine.start();
  }
}

function now({ worlds }: Machine): World {
  return worlds.at(-1) as World;
}

/** Every job ends by itself, without being stopped. */
async function rest(machine: Machine): Promise<void> {
  await Promise.all(machine.pending);
  const { jobs } = now(machine);
  while (jobs.list().some((job) => !isTerminal(job))) await turn();
  await jobs.close();
}

function assertKept(machine: Machine): void {
  const { worlds, acknowledged } = machine;
  const last = now(machine);
  last.assertAtRest();
  for (const id of acknowledged) {
    const job = last.jobs.get(id);
    assert.ok(job && isTerminal(job), 'an acknowledged job is lost');
    const ends = worlds
      .flatMap(({ events }) => events)
      .flatMap((event) => (event.type === 'state' && event.job.id === id ? [event.job.state] : []))
      .filter((state) => isTerminal({ state }));
    assert.ok(ends.length <= 1, `the end was told as ${ends.join()}`);
    assert.ok(
      ends.every((state) => state === job.state),
      'another end was told than is on record',
    );
  }
}
