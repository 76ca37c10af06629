/**
 * The entry point `koa-esphome-receiver/testing` (short because it mostly re-exports): a fast stand-in for ESPHome, and the
 * test suites that every job store and job queue must pass, ours and those of others.
 */
import { fileURLToPath } from 'node:url';

/** The command of the stand-in. The header of its file lists the knobs. */
export const standInEsphome: readonly [string, ...string[]] = [
  process.execPath,
  fileURLToPath(new URL('stand-in-esphome.js', import.meta.url)),
];

export { jobStoreSuite, type StoreFactory } from './job-store-suite.js';
export { jobQueueSuite, type QueueFactory } from './job-queue-suite.js';
export { exampleRecord } from './job-store-suite.js';
export { hostPeer, type JobQueue, type QueueTicket, type QueueOrder, type Slot } from '../jobs/queue.js';
export type { JobStore } from '../jobs/store.js';
export type { JobRecord, JobState, FailureReason } from '../jobs/record.js';
