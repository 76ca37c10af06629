/**
 * The door of `koa-esphome-receiver/testing`: a quick stand-in for ESPHome, and the suites that every job store and
 * every job queue must pass, ours and those of others.
 */
import { fileURLToPath } from 'node:url';

/** The command of the stand-in; what it can be told to do stands at the head of its file. */
export const standInEsphome: readonly [string, ...string[]] = [
  process.execPath,
  fileURLToPath(new URL('stand-in-esphome.js', import.meta.url)),
];

export { jobStoreSuite, type StoreFactory } from './job-store-suite.js';
export { jobQueueSuite, type QueueFactory } from './job-queue-suite.js';
export { exampleRecord } from './example-record.js';
export { hostPeer, type JobQueue, type QueueTicket, type QueueOrder, type Slot } from '../jobs/queue.js';
export type { JobStore } from '../jobs/store.js';
export type { JobRecord, JobState, FailureReason } from '../jobs/record.js';
