/**
 * Any interleaving of submitting, cancelling, failing, losing leases and stopping: fast-check decides which of the
 * steps that wait goes on next, and prints the order when a rule is broken.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';

import fc from 'fast-check';

import { ReceiverError } from '../../src/errors.js';
import { isTerminal } from '../../src/jobs/job.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { tempDir } from '../support/temp-dir.js';
import { bundleIn, exampleRequest } from './examples.js';
import { cleanResult, createWorld, type World } from './harness.js';

interface Act {
  readonly act: 'submit' | 'submitBad' | 'clean' | 'cancel' | 'lose' | 'cancelByPeer' | 'cancelAllOf';
  readonly peer: number;
  readonly device: number;
  readonly which: number;
}

const act: fc.Arbitrary<Act> = fc.record({
  act: fc.constantFrom<Act['act']>(
    ...(['submit', 'submit', 'submit', 'submitBad', 'clean', 'cancel', 'cancel', 'lose'] as const),
    ...(['cancelByPeer', 'cancelAllOf'] as const),
  ),
  ...{ peer: fc.nat(1), device: fc.nat(1), which: fc.nat(9) },
});

const peers = ['peer_one', 'peer_two'].map(dashboardId);
const names = ['kitchen.yaml', 'bath.yaml'];

/** Does one act, and adds what has to be waited for to `pending`. */
async function perform(
  world: World,
  { act: what, peer, device, which }: Act,
  pending: Promise<unknown>[],
): Promise<void> {
  const { jobs, leases } = world;
  const id = peers[peer] as DashboardId;
  const all = jobs.list();
  const job = all[which % Math.max(1, all.length)];
  const request = exampleRequest({
    ...{ dashboardId: id, name: names[device] as string, target: what === 'clean' ? 'clean' : 'compile' },
  });
  if (what === 'submit' || what === 'clean') jobs.submit(request, Promise.resolve(bundleIn(world)));
  if (what === 'submitBad') jobs.submit(request, Promise.reject(new ReceiverError('BUNDLE', 'bad')));
  if (what === 'cancel' && job) assert.equal(jobs.cancel(job.id), !isTerminal(job));
  if (what === 'lose') [...leases.values()][which % Math.max(1, leases.size)]?.lose();
  if (what === 'cancelByPeer') jobs.cancelByPeer(id, 'job-1');
  if (what === 'cancelAllOf') pending.push(jobs.cancelAllOf(id));
}

/** Every job ends by itself, without being stopped. */
async function restOf({ jobs }: World): Promise<void> {
  while (jobs.list().some((job) => !isTerminal(job))) await turn();
}

test('In any interleaving each job ends once, no two builds meet, and nothing is left', async (t) => {
  const jobsDir = await tempDir(t);
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(act, { minLength: 1, maxLength: 12 }),
      fc.array(fc.nat(5), { minLength: 6, maxLength: 6 }),
      fc.integer({ min: 1, max: 3 }),
      fc.boolean(),
      async (scheduler, wishes, results, slots, isStopped) => {
        let runs = 0;
        const world = await createWorld({
          jobsDir,
          slots,
          async gate(moment) {
            await scheduler.schedule(Promise.resolve(), moment);
          },
          run: {
            resultCache: true,
            async verify() {
              await scheduler.schedule(Promise.resolve(), 'verify');
              runs += 1;
              if (results[runs % results.length] === 0) throw new ReceiverError('WROTE_ELSEWHERE', 'away');
            },
            async precheck() {
              return results[runs % results.length] === 1 ? { ...cleanResult, exitCode: 2 } : null;
            },
          },
        });
        const pending: Promise<unknown>[] = [];
        const acts = scheduler.scheduleSequence(
          wishes.map((wish) => ({
            label: wish.act,
            builder: () => perform(world, wish, pending),
          })),
        );
        await scheduler.waitFor(acts.task);
        await scheduler.waitFor(
          (async () => {
            if (!isStopped) await restOf(world);
            await Promise.all(pending);
            await world.jobs.close();
          })(),
        );
        world.assertAtRest();
      },
    ),
    { numRuns: 50 },
  );
});
