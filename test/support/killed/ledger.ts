/**
 * What the peers of a receiver that is killed again and again know of their jobs, and what must hold of it: a job ends
 * once, an end is never taken back, and its program is that of its own configuration, to the last byte.
 */
import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { unpackArtifacts, type Artifacts, type BuildResult } from '../../../src/koa/offloader.js';

export interface Job {
  readonly id: string;
  readonly device: string;
  readonly bundle: Buffer;
  /** Of the configuration: no two jobs have the same. */
  readonly program: string;
  isAccepted: boolean;
  end: BuildResult['status'] | null;
  isFetched: boolean;
  /** What has happened to it, for whoever has to find out why. */
  readonly history: string[];
}

/** Notes what a peer is told of a job's end. */
export function noteEnd(job: Job, { status, errorMessage }: BuildResult): void {
  assert.ok(job.isAccepted, `the job ${job.id} ends and was never acknowledged`);
  if (job.end !== null) assert.equal(status, job.end, `the job ${job.id} ends a second time, in another way`);
  job.end = status;
  if (status !== 'failed') return;
  // The only failure that a kill may cause: a build that brings its receiver down must not do so for ever.
  assert.match(errorMessage, /has ended twice during this job/, `the job ${job.id} failed`);
}

/** Notes a download; its program must be the job's. `scratch` is a directory that is not there. */
export async function noteDownload(job: Job, { bytes }: Artifacts, scratch: string): Promise<void> {
  const { firmwarePath } = await unpackArtifacts(bytes, scratch);
  const program = await readFile(firmwarePath, 'utf8');
  assert.ok(program === job.program, `the job ${job.id} has a wrong program: ${program.slice(0, 80)}`);
  await rm(scratch, { recursive: true });
  job.isFetched = true;
}

interface KeptRecord {
  readonly peerJobId: string;
  readonly state: string;
}

/** The records that a killed receiver has left. Each must be whole: they are replaced at once or not at all. */
export async function recordsIn(receiverDir: string, names: readonly string[]): Promise<KeptRecord[]> {
  const texts = names
    .filter((name) => name.endsWith('.json'))
    .map((name) => readFile(join(receiverDir, 'jobs', name), 'utf8'));
  return (await Promise.all(texts)).map((text) => JSON.parse(text) as KeptRecord);
}

/** What was acknowledged and has not ended yet, as far as its peer knows, is on the disk. */
export function assertOnRecord(jobs: Iterable<Job>, records: readonly KeptRecord[]): void {
  const ids = new Set(records.map(({ peerJobId }) => peerJobId));
  for (const job of jobs) {
    if (job.isAccepted && job.end === null)
      assert.ok(ids.has(job.id), `the acknowledged job ${job.id} is lost`);
  }
}
