/**
 * One bundle on its way up: announced, then chunk by chunk as the connection takes it, so that the session's pings
 * and pongs never wait behind a whole bundle.
 */
import { createHash } from 'node:crypto';

import { chunkBytes } from '../bundles/assembler.js';
import { ReceiverError } from '../errors.js';
import type { OffloaderChannel } from '../link/channel.js';
import { inChunks } from '../link/chunks.js';
import { lowWaterBytes } from '../link/outbox.js';
import type { AnnouncedBundle, BuildRequest, Bundle } from './build-request.js';

export function toAnnouncedBundle(bundle: Bundle): AnnouncedBundle {
  if (!Buffer.isBuffer(bundle)) return bundle;
  return { bytes: [bundle], size: bundle.length, sha256: createHash('sha256').update(bundle).digest('hex') };
}

export interface UploadParts {
  readonly channel: OffloaderChannel;
  readonly jobId: string;
  readonly request: BuildRequest;
  readonly bundle: AnnouncedBundle;
  /** The receiver has refused the job, or the session is over: there is no use in going on. */
  readonly isOver: () => boolean;
}

/** Resolves when the last byte has left. Throws BUNDLE when the bytes are not as announced, and what they throw. */
export async function uploadBundle({ channel, jobId, request, bundle, isOver }: UploadParts): Promise<void> {
  channel.send({
    type: 'submit_job',
    job_id: jobId,
    configuration_filename: request.file,
    target: request.target ?? 'compile',
    total_bundle_bytes: bundle.size,
    num_chunks: Math.ceil(bundle.size / chunkBytes),
    bundle_sha256: bundle.sha256,
    device_name: request.deviceName ?? '',
    device_friendly_name: request.deviceFriendlyName ?? '',
    target_esphome_version: request.targetVersion ?? '',
    skip_bootloader: request.skipBootloader ?? false,
  });
  let index = 0;
  let sent = 0;
  for await (const piece of inChunks(bundle.bytes, chunkBytes)) {
    await channel.drained(lowWaterBytes);
    if (isOver()) return;
    sent += piece.length;
    if (sent > bundle.size) break;
    channel.send({
      type: 'submit_job_chunk',
      job_id: jobId,
      chunk_index: index,
      data_b64: piece.toString('base64'),
      is_last: sent === bundle.size,
    });
    index += 1;
  }
  if (sent !== bundle.size) {
    throw new ReceiverError('BUNDLE', 'the bundle does not have the size that was announced', {
      announced: bundle.size,
      sent,
    });
  }
  await channel.drained(0);
}
