/**
 * What every job store promises, as tests: call it from a test file with a way to open a store.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { describe, test, type TestContext } from 'node:test';

import type { JobStore } from '../jobs/store.js';
import { exampleRecord } from './example-record.js';

/**
 * Makes an empty place for records and returns how to open a store on it: each call opens the same place anew, as
 * after a restart. Clean-ups go to `t.after`.
 */
export type StoreFactory = (t: TestContext) => Promise<() => Promise<JobStore>>;

/** Registers the tests under `name`. */
export function jobStoreSuite(name: string, prepare: StoreFactory): void {
  describe(name, () => {
    test('A record that was put is there after the store is opened again', async (t) => {
      const open = await prepare(t);
      const record = exampleRecord({
        ...{ state: 'completed', startedAt: 2, finishedAt: 3, esphomeVersion: '2026.10.0', attempt: 2 },
        ...{ cached: true, resultKey: 'ef'.repeat(32) },
        artifacts: { bytes: 5, sha256: 'cd'.repeat(32), firmwareOffset: '0x0' },
      });
      await (await open()).put(record);
      assert.deepEqual(await (await open()).load(), [record]);
    });

    test('The last put of an id wins, in the order of the calls', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const record = exampleRecord();
      const attempts = Array.from({ length: 20 }, (_, index) => index + 1);
      await Promise.all(attempts.map((attempt) => store.put({ ...record, attempt })));
      assert.deepEqual(await (await open()).load(), [{ ...record, attempt: 20 }]);
    });

    test('Records are loaded oldest first, each once', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const records = [30, 10, 20].map((createdAt) => exampleRecord({ createdAt }));
      for (const record of records) await store.put(record);
      const loaded = await (await open()).load();
      assert.deepEqual(
        loaded.map((record) => record.createdAt),
        [10, 20, 30],
      );
    });

    test('A removed record does not come back, and removing an unknown one is no error', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const [gone, kept] = [exampleRecord(), exampleRecord()];
      await Promise.all([store.put(gone), store.put(kept), store.remove(gone.id)]);
      await store.remove(randomUUID());
      assert.deepEqual(await (await open()).load(), [kept]);
    });

    test('Text of any script and length is kept as it is', async (t) => {
      const open = await prepare(t);
      const record = exampleRecord({
        peerLabel: 'Küche "1"\\\n\u2028\u{1f600}',
        errorMessage: 'x'.repeat(10_000),
      });
      await (await open()).put(record);
      assert.deepEqual(await (await open()).load(), [record]);
    });
  });
}
