/** The frames of a well-formed upload; tests change the parts that must be refused. */
import { createHash } from 'node:crypto';

import type { Client } from './setting.js';

export const jobId = '4be1c09a77d2';
const rawChunkBytes = 32_768;

export function headerFrame(bundle: Buffer, changes: object = {}): Record<string, unknown> {
  return {
    type: 'submit_job',
    job_id: jobId,
    configuration_filename: 'porch-light.yaml',
    target: 'compile',
    total_bundle_bytes: bundle.length,
    num_chunks: Math.ceil(bundle.length / rawChunkBytes),
    bundle_sha256: createHash('sha256').update(bundle).digest('hex'),
    device_name: 'porch-light',
    device_friendly_name: 'Porch light',
    target_esphome_version: '2026.10.0',
    skip_bootloader: true,
    ...changes,
  };
}

export function chunkFrames(bundle: Buffer, changes: object = {}): Record<string, unknown>[] {
  const count = Math.ceil(bundle.length / rawChunkBytes);
  return Array.from({ length: count }, (_, index) => ({
    type: 'submit_job_chunk',
    job_id: jobId,
    chunk_index: index,
    data_b64: bundle.subarray(index * rawChunkBytes, (index + 1) * rawChunkBytes).toString('base64'),
    is_last: index === count - 1,
    ...changes,
  }));
}

/** Sends a whole bundle. */
export function upload(client: Client, bundle: Buffer, changes: Record<string, unknown> = {}): void {
  const id = 'job_id' in changes ? { job_id: changes['job_id'] } : {};
  for (const frame of [headerFrame(bundle, changes), ...chunkFrames(bundle, id)]) client.send(frame);
}
