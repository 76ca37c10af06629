/**
 * What the peers of a repeatedly killed receiver know about their jobs, and the invariants: a job ends
 * once, an end is never revoked, and its program is exactly that of its own configuration.
 */
import assert from 'node:assert/strict';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { unpackArtifacts, type Artifacts, type BuildResult } from '../../../src/koa/offloader.js';

export interface Job {
  readonly id: string;
  readonly device: string;
  readonly bundle: Buffer;
  /** A part of the configuration, unique to each job. */
  readonly program: string;
  isAccepted: boolean;
  end: BuildResult['status'] | null;
  isFetched: boolean;
  /** Its history, to debug a failure. */
  readonly history: string[];
}

/** Records the end of a job as its peer is told. */
export function noteEnd(job: Job, { status, errorMessage }: BuildResult): void {
  assert.ok(job.isAccepted, `the job ${job.id} ends and was never acknowledged`);
  if (job.end !== null) assert.equal(status, job.end, `the job ${job.id} ends a second time, in another way`);
  job.end = status;
  if (status !== 'failed') return;
  // The only failure that a kill can cause: a build that ends its receiver must not do so forever.
  assert.match(errorMessage, /stopped twice while running this job/, `the job ${job.id} failed`);
}

/** Records a download; its program must be that of the job. `scratch` is a directory that does not exist. */
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

/** The records of a killed receiver. Each must be complete, because they are replaced atomically. */
export async function recordsIn(receiverDir: string, names: readonly string[]): Promise<KeptRecord[]> {
  const texts = names
    .filter((name) => name.endsWith('.json'))
    .map((name) => readFile(join(receiverDir, 'jobs', name), 'utf8'));
  return (await Promise.all(texts)).map((text) => JSON.parse(text) as KeptRecord);
}

/** Checks that every acknowledged job without a known end is on disk. */
export function assertOnRecord(jobs: Iterable<Job>, records: readonly KeptRecord[]): void {
  const ids = new Set(records.map(({ peerJobId }) => peerJobId));
  for (const job of jobs) {
    if (job.isAccepted && job.end === null)
      assert.ok(ids.has(job.id), `the acknowledged job ${job.id} is lost`);
  }
}
