/**
 * The queue in memory, by the shared suite and by whatever comes and goes; who is said to be in front; how a machine is
 * divided; and the record's states, which nothing can leave or enter twice.
 * Covers src/testing/job-queue-suite.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { advance, isSameWork, isTerminal, jobStates, type Step } from '../../src/jobs/record.js';
import { createMemoryQueue, type Slot } from '../../src/jobs/queue.js';
import { turnsOf, waitingText, type Owner, type WaitReason } from '../../src/jobs/waiting.js';
import { dashboardId } from '../../src/paths/index.js';
import { exampleRecord, jobQueueSuite } from '../../src/testing/index.js';

jobQueueSuite('The queue in memory', (_, options) => Promise.resolve(createMemoryQueue(options)));

type Act = { readonly enter: number } | { readonly release: number } | { readonly abort: number };

const act: fc.Arbitrary<Act> = fc.oneof(
  fc.record({ enter: fc.nat(3) }),
  fc.record({ release: fc.nat(9) }),
  fc.record({ abort: fc.nat(9) }),
);

test('For any order of events, no peer is served twice while another waits, and no slot stays idle', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 3 }),
      fc.array(act, { maxLength: 60 }),
      async (slots, acts) => {
        const queue = createMemoryQueue({ slots });
        const held = new Map<string, Slot>();
        const waiting = new Map<string, { readonly peer: string; readonly controller: AbortController }>();
        /** For each peer that waits, how often each other one has been served since it waits or was served itself. */
        const since = new Map<string, Map<string, number>>();
        let count = 0;

        function served(id: string, slot: Slot): void {
          const peer = waiting.get(id)?.peer ?? '';
          const own = [...waiting].filter(([, other]) => other.peer === peer);
          assert.equal(own[0]?.[0], id, 'a job has overtaken one of its own peer');
          waiting.delete(id);
          held.set(id, slot);
          since.delete(peer);
          if (own.length > 1) since.set(peer, new Map());
          for (const [patient, counts] of since) {
            if (patient === peer) continue;
            counts.set(peer, (counts.get(peer) ?? 0) + 1);
            assert.equal(counts.get(peer), 1, `${peer} was served twice while ${patient} waited`);
          }
        }

        for (const each of acts) {
          const expected = [...queue.status().waiting];
          if ('enter' in each) {
            const [id, peer, controller] = [`job${(count += 1)}`, `peer${each.enter}`, new AbortController()];
            waiting.set(id, { peer, controller });
            if (!since.has(peer)) since.set(peer, new Map());
            queue.enter(id, { peer, target: 'compile', signal: controller.signal }).then(
              (slot) => served(id, slot),
              () => {},
            );
          } else if ('release' in each) {
            const id = [...held.keys()][each.release % Math.max(1, held.size)];
            held.get(id ?? '')?.release();
            held.delete(id ?? '');
          } else {
            const [id, leaving] = [...waiting][each.abort % Math.max(1, waiting.size)] ?? [];
            leaving?.controller.abort();
            waiting.delete(id ?? '');
            if (leaving && ![...waiting.values()].some(({ peer }) => peer === leaving.peer))
              since.delete(leaving.peer);
          }
          await Promise.resolve();
          await Promise.resolve();
          const { running, waiting: order } = queue.status();
          assert.deepEqual(running.toSorted(), [...held.keys()].toSorted());
          assert.deepEqual(order.toSorted(), [...waiting.keys()].toSorted());
          assert.ok(running.length <= slots);
          assert.ok(running.length === slots || order.length === 0, 'a slot lies idle');
          if ('release' in each) assert.deepEqual([...expected.filter((id) => !held.has(id))], order);
        }
      },
    ),
    { numRuns: 200 },
  );
});

test('A job says whose jobs come before it, three names at most, and hostile names in one line', () => {
  const peers = new Map(['h', 'c', 'g', 'z'].map((letter) => [letter, dashboardId(`dashboard-${letter}`)]));
  const labels = new Map([
    ['h', 'Home'],
    ['c', 'Cabin'],
    ['g', 'a"\n\u202e'],
    ['z', 'Zoo'],
  ]);
  const ownerOf = (id: string): Owner => {
    const letter = id.charAt(0);
    return { dashboardId: peers.get(letter) ?? null, label: labels.get(letter) ?? 'this host' };
  };
  const turns = turnsOf({ running: ['h1', 'h2'], waiting: ['c1', 'l1', 'g1', 'z1', 'h3', 'c2'] }, ownerOf);
  assert.deepEqual(
    [...turns].map(([id, turn]) => `${id}: ${waitingText(turn)}`),
    [
      'c1: behind 2 jobs of "Home"',
      'l1: behind 2 jobs of "Home" and 1 of "Cabin"',
      'g1: behind 2 jobs of "Home", 1 of "Cabin" and 1 of this host',
      'z1: behind 2 jobs of "Home", 1 of "Cabin", 1 of this host and 1 more',
      'h3: behind 2 jobs of "Home", 1 of "Cabin", 1 of this host and 2 more',
      'c2: behind 3 jobs of "Home", 1 of "Cabin", 1 of this host and 2 more',
    ],
  );
  const hostile = turnsOf({ running: ['g1'], waiting: ['h1'] }, ownerOf).get('h1');
  assert.equal(hostile && waitingText(hostile), 'behind 1 job of "a\\"\\n\\u202e"');
});

test('Other reasons to wait are shown with what is free and what is needed', () => {
  const said: [WaitReason, string][] = [
    [{ for: 'memory', freeBytes: 3.19e9, neededBytes: 4e9 }, 'memory 3.1 of 4 GB needed'],
    [{ for: 'memory', freeBytes: 3.99e9, neededBytes: 4e9 }, 'memory 3.9 of 4 GB needed'],
    [{ for: 'disk', freeBytes: 0, neededBytes: 6.25e8 }, 'disk 0 of 0.7 GB needed'],
    [{ for: 'device' }, 'device busy'],
    [{ for: 'toolchain', platform: 'esp32' }, 'toolchain being installed'],
  ];
  for (const [waiting, text] of said) assert.equal(waitingText(waiting), text);
});

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.constantFrom<Step>(
    { to: 'queued', bundle: null },
    { to: 'running' },
    { to: 'completed', artifacts: null },
  ),
  fc.constant<Step>({ to: 'failed', reason: 'compile', message: 'no' }),
  fc.constant<Step>({ to: 'cancelled', message: 'enough' }),
);

test('For any sequence of steps, a job only moves forward and ends at most once', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      let record = exampleRecord();
      let ends = 0;
      for (const [now, next] of steps.entries()) {
        const after = advance(record, next, now);
        if (after === null) continue;
        assert.ok(!isTerminal(record), 'it went on after its end');
        assert.ok(jobStates.indexOf(after.state) > jobStates.indexOf(record.state));
        assert.equal(after.finishedAt !== null, isTerminal(after));
        ends += isTerminal(after) ? 1 : 0;
        record = after;
      }
      assert.ok(ends <= 1);
    }),
  );
});

test('Only a running job completes, and each end records its facts', () => {
  const queued = exampleRecord({ state: 'queued' });
  const artifacts = { bytes: 1, sha256: 'ab', firmwareOffset: '0x0' } as const;
  assert.equal(advance(queued, { to: 'completed', artifacts }, 5), null);
  assert.equal(advance(exampleRecord(), { to: 'running' }, 5), null);
  const running = advance(queued, { to: 'running' }, 5);
  assert.equal(running?.startedAt, 5);
  assert.deepEqual(running && advance(running, { to: 'completed', artifacts }, 9)?.artifacts, artifacts);
  const failed = advance(queued, { to: 'failed', reason: 'resource', message: 'no room' }, 9);
  assert.deepEqual(
    [failed?.failureReason, failed?.errorMessage, failed?.finishedAt],
    ['resource', 'no room', 9],
  );
  const cancelled = advance(queued, { to: 'cancelled', message: 'enough' }, 9);
  assert.deepEqual([cancelled?.failureReason, cancelled?.errorMessage], [null, 'enough']);
});

test('The same work is the same peer, device and target', () => {
  const record = exampleRecord();
  assert.ok(isSameWork(record, exampleRecord({ peerJobId: 'another', bundleSha256: 'cd' })));
  assert.ok(!isSameWork(record, exampleRecord({ target: 'clean' })));
  assert.ok(!isSameWork(record, exampleRecord({ device: 'bath' as typeof record.device })));
  assert.ok(!isSameWork(record, exampleRecord({ dashboardId: 'another1' as typeof record.dashboardId })));
});
