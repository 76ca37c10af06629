/**
 * A valid job record for tests (short because it is one function): each call creates a new job, and a test sets only the
 * fields that matter to it.
 */
import { randomUUID } from 'node:crypto';

import { startOfProgress } from '../esphome/progress.js';
import type { JobRecord } from '../jobs/record.js';
import { dashboardId, deviceFromFile, fileName, formatConfiguration } from '../paths/index.js';

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
