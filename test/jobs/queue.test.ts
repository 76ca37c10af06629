/** The queue in memory, by the shared suite; and the record's states, which nothing can leave or enter twice. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import fc from 'fast-check';

import { advance, isSameWork, isTerminal, jobStates, type Step } from '../../src/jobs/job.js';
import { createMemoryQueue } from '../../src/jobs/queue.js';
import { exampleRecord, jobQueueSuite } from '../../src/testing/index.js';

jobQueueSuite('The queue in memory', (_, options) => Promise.resolve(createMemoryQueue(options)));

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.constantFrom<Step>(
    { to: 'queued', bundle: null },
    { to: 'running' },
    { to: 'completed', artifacts: null },
  ),
  fc.constant<Step>({ to: 'failed', reason: 'compile', message: 'no' }),
  fc.constant<Step>({ to: 'cancelled', message: 'enough' }),
);

test('Whatever is tried in whatever order, a job moves forward only and ends at most once', () => {
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

test('Only a running job completes, and each end says what it has to say', () => {
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
