/** How job results are listed and removed, including one fetched in the meantime. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { JobRecord } from '../../src/jobs/record.js';
import { createResultStore } from '../../src/retention/evictable.js';
import { exampleRecord } from '../../src/testing/index.js';

const artifacts = { bytes: 7, sha256: 'cd'.repeat(32), firmwareOffset: '0x0' } as const;

function jobsOf(...records: JobRecord[]): Parameters<typeof createResultStore>[0] {
  return {
    results: () => records,
    get: (id) => records.find((record) => record.id === id),
    async remove(id) {
      const at = records.findIndex((record) => record.id === id);
      return records.splice(at, 1).length === 1;
    },
  };
}

test('Each result is listed with its size and its last use', async () => {
  const fetched = exampleRecord({ state: 'completed', artifacts, createdAt: 1, finishedAt: 2, fetchedAt: 3 });
  const built = exampleRecord({ state: 'completed', artifacts, createdAt: 1, finishedAt: 2 });
  const shelf = createResultStore(jobsOf(fetched, built));
  const entry = { bytes: 7, isInUse: false };
  assert.deepEqual(await shelf.list(), [
    { ...entry, item: { kind: 'result', jobId: fetched.id }, usedAt: 3 },
    { ...entry, item: { kind: 'result', jobId: built.id }, usedAt: 2 },
  ]);
});

test('A result fetched since it was listed stays, and removing a missing one is not an error', async () => {
  const records = [exampleRecord({ state: 'completed', artifacts, finishedAt: 2 })];
  const jobs = jobsOf(...records);
  const shelf = createResultStore(jobs);
  const [entry] = await shelf.list();
  assert.ok(entry);
  assert.equal(await shelf.remove({ ...entry, usedAt: 1 }), false);
  assert.equal(jobs.results().length, 1);
  assert.equal(await shelf.remove(entry), true);
  assert.equal(await shelf.remove(entry), false);
  assert.equal(jobs.results().length, 0);
});
