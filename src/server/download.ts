/**
 * Sends the result of a build to the peer that ordered it (Device Builder 1.26). It is read in pieces as fast as the
 * connection accepts them, so a slow link costs no memory, and the session answers pings meanwhile.
 */
import { isReceiverError, quote } from '../errors.js';
import { createRefusalLog } from '../log.js';
import { lowWaterBytes } from '../protocol/channel.js';
import type { ArtifactsReason } from '../protocol/constants.js';
import { chunkBytes, inChunks } from '../protocol/transfer.js';
import type { PeerSessionDeps } from './ports.js';

const maxDetailLength = 256;

type DownloadHandlerDeps = Pick<PeerSessionDeps, 'dashboardId' | 'channel' | 'jobs' | 'clock' | 'log'>;

export function createDownloadHandler({ dashboardId, channel, jobs, clock, log }: DownloadHandlerDeps) {
  const warnRefused = createRefusalLog(log, clock);
  let running: Promise<void> | undefined;
  let ended = false;

  function refuse(jobId: string, reason: ArtifactsReason, error?: unknown): void {
    const detail = isReceiverError(error) ? error.message.slice(0, maxDetailLength) : undefined;
    const facts = { dashboardId, peerJobId: quote(jobId), reason };
    warnRefused(error === undefined ? facts : { ...facts, err: error }, 'download refused');
    channel.send({
      type: 'artifacts_end',
      job_id: jobId,
      accepted: false,
      reason,
      ...(detail && { detail }),
    });
  }

  async function deliver(jobId: string, id: string): Promise<void> {
    let started = false;
    try {
      const artifacts = await jobs.openArtifacts(id);
      if (ended) return;
      channel.send({
        type: 'artifacts_start',
        job_id: jobId,
        total_bytes: artifacts.bytes,
        num_chunks: Math.ceil(artifacts.bytes / chunkBytes),
        artifacts_sha256: artifacts.sha256,
        firmware_offset: artifacts.firmwareOffset,
      });
      started = true;
      await stream(jobId, artifacts.bytes, artifacts.read());
      channel.send({ type: 'artifacts_end', job_id: jobId, accepted: true });
    } catch (error) {
      refuse(jobId, started ? 'stream_failed' : openingReason(error), error);
    }
  }

  async function stream(jobId: string, bytes: number, source: AsyncIterable<Buffer>): Promise<void> {
    let index = 0;
    let sent = 0;
    for await (const piece of inChunks(source, chunkBytes)) {
      await channel.drained(lowWaterBytes);
      if (ended) return;
      sent += piece.length;
      if (sent > bytes) break;
      channel.send({
        type: 'artifacts_chunk',
        job_id: jobId,
        chunk_index: index,
        data_b64: piece.toString('base64'),
        is_last: sent === bytes,
      });
      index += 1;
    }
    if (sent !== bytes)
      throw new Error(`stored artifacts changed size: expected ${bytes} bytes, got ${sent}`);
  }

  return {
    /** Answers a `download_artifacts`. Each peer has one download at a time. */
    start(jobId: string): void {
      if (running) return refuse(jobId, 'duplicate_download');
      const job = jobs.find(dashboardId, jobId);
      if (!job) return refuse(jobId, 'unknown_job');
      if (job.state !== 'completed') return refuse(jobId, 'job_not_completed');
      running = deliver(jobId, job.id).finally(() => (running = undefined));
    },
    isBusy: () => running !== undefined,
    /** Stops the stream; resolves when its file is closed. */
    async end(): Promise<void> {
      ended = true;
      await running;
    },
  };
}

function openingReason(error: unknown): ArtifactsReason {
  if (isReceiverError(error, 'NOT_FOUND')) return 'unknown_job';
  const isIncomplete = isReceiverError(error, 'ARTIFACTS') || isReceiverError(error, 'STORAGE');
  return isIncomplete ? 'build_dir_missing' : 'pack_failed';
}
