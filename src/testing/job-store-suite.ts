/** The contract of a job store as tests: call the suite from a test file with a factory of stores. */
import { randomUUID } from 'node:crypto';
import { describe, test, type TestContext } from 'node:test';

import assert from 'node:assert/strict';

import { startOfProgress } from '../esphome/progress.js';
import type { JobRecord } from '../jobs/record.js';
import type { JobStore } from '../jobs/store.js';
import { dashboardId, deviceFromFile, fileName, formatConfiguration } from '../paths/index.js';

/**
 * Prepares an empty location for records and returns a function that opens a store on it, each time like another process
 * or like this one after a restart. Register cleanups with `t.after`.
 */
export type StoreFactory = (t: TestContext) => Promise<() => Promise<JobStore>>;

const noHints = { buildPath: false, remoteParts: true, webFiles: false };
const never = new AbortController().signal;

/** Registers the tests under `name`. */
export function jobStoreSuite(name: string, prepare: StoreFactory): void {
  describe(name, () => {
    test('A stored record is still there after the store is reopened', async (t) => {
      const open = await prepare(t);
      const record = exampleRecord({
        ...{ state: 'completed', startedAt: 2, finishedAt: 3, esphomeVersion: '2026.10.0', attempt: 2 },
        ...{ cached: true, resultKey: 'ef'.repeat(32), requeued: true },
        bundle: {
          bytes: 7,
          members: 2,
          remoteContent: noHints,
          contentSha256: 'c0',
          esphomeVersion: '2026.9.1',
        },
        artifacts: { bytes: 5, sha256: 'cd'.repeat(32), firmwareOffset: '0x0' },
      });
      await putAndClose(open, record);
      assert.deepEqual(await (await open()).load(), [record]);
    });

    test('The last put of an id wins, in the order of the calls', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const record = exampleRecord();
      const attempts = Array.from({ length: 20 }, (_, index) => index + 1);
      await Promise.all(attempts.map((attempt) => store.put({ ...record, attempt })));
      await store.close();
      assert.deepEqual(await (await open()).load(), [{ ...record, attempt: 20 }]);
    });

    test('Records are loaded oldest first, each once', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const records = [30, 10, 20].map((createdAt) => exampleRecord({ createdAt }));
      for (const record of records) await store.put(record);
      await store.close();
      const loaded = await (await open()).load();
      assert.deepEqual(
        loaded.map((record) => record.createdAt),
        [10, 20, 30],
      );
    });

    test('A removed record does not return, and removing an unknown one does not fail', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const [gone, kept] = [exampleRecord(), exampleRecord()];
      await Promise.all([store.put(gone), store.put(kept), store.remove(gone.id)]);
      await store.remove(randomUUID());
      await store.close();
      assert.deepEqual(await (await open()).load(), [kept]);
    });

    test('A live job is taken over by no other store while its own is open, and by exactly one afterwards', async (t) => {
      const open = await prepare(t);
      const store = await open();
      const [live, ended] = [
        exampleRecord({ createdAt: 1 }),
        exampleRecord({ createdAt: 2, state: 'failed' }),
      ];
      await Promise.all([store.put(live), store.put(ended)]);
      const others = [await open(), await open(), await open()];
      for (const other of others) {
        assert.deepEqual(await other.load(), [ended]);
        assert.deepEqual(await other.loadLeft(never), []);
      }
      assert.deepEqual(await store.load(), [live, ended]);
      const waiting = store.put({ ...live, attempt: 2 });
      await store.close();
      const loaded = await Promise.all(others.map(async (other) => other.load()));
      assert.deepEqual(
        loaded.map((records) => records.length).toSorted((a, b) => a - b),
        [1, 1, 2],
      );
      assert.ok(
        loaded.some((records) => records[0]?.attempt === 2),
        'the pending put is stored',
      );
      await waiting;
      const heir = others[loaded.findIndex((records) => records.length === 2)] ?? store;
      await heir.put({ ...live, attempt: 3 });
      await heir.close();
      assert.deepEqual(await (await open()).load(), [{ ...live, attempt: 3 }, ended]);
    });

    test('Text of any script and length is kept unchanged', async (t) => {
      const open = await prepare(t);
      const record = exampleRecord({
        peerLabel: 'Küche "1"\\\n\u2028\u{1f600}',
        errorMessage: 'x'.repeat(10_000),
      });
      await putAndClose(open, record);
      assert.deepEqual(await (await open()).load(), [record]);
    });
  });
}

async function putAndClose(open: () => Promise<JobStore>, record: JobRecord): Promise<void> {
  const store = await open();
  await store.put(record);
  await store.close();
}

export function exampleRecord(facts: Partial<JobRecord> = {}): JobRecord {
  const file = fileName('kitchen.yaml');
  const key = { dashboardId: dashboardId('k3Jx0Qm7vXb2Zr8T'), device: deviceFromFile(file) };
  return {
    ...key,
    ...{ id: randomUUID(), configuration: formatConfiguration(key, file), file, target: 'compile' },
    ...{ peerLabel: 'Living room', peerJobId: 'job-1', lane: 1, bundleSha256: 'ab'.repeat(32) },
    ...{ targetVersion: '', skipBootloader: false, deviceName: 'kitchen', deviceFriendlyName: 'Kitchen' },
    ...{ state: 'receiving', failureReason: null, errorMessage: '', interrupted: false },
    ...{ createdAt: 1, startedAt: null, finishedAt: null, fetchedAt: null, esphomeVersion: null },
    ...{ progress: startOfProgress(), attempt: 1, artifacts: null, cached: false },
    ...{ resultKey: null, platform: null, bundle: null, requeued: false, waiting: null },
    ...facts,
  };
}
