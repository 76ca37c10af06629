/**
 * The jobs of one session: a bundle is sent in chunks, an ack and states come back, and exactly one of them ends the
 * pending call (Device Builder 1.26). Chunks are sent as fast as the connection accepts them, so that pings and pongs
 * never wait behind a whole bundle.
 */
import { randomBytes, createHash } from 'node:crypto';

import { onAbort } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/calls.js';
import { quote, ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { lowWaterBytes, type OffloaderChannel } from '../protocol/channel.js';
import type { JobStatus } from '../protocol/constants.js';
import type { FrameOf } from '../protocol/frames.js';
import { maxBundleBytes, chunkBytes, inChunks } from '../protocol/transfer.js';

const ackTimeoutMs = 60_000;

interface ClientJob {
  readonly request: BuildRequest;
  phase: 'waiting' | 'sending' | 'accepted' | 'over';
  /** A cancellation waits for the ack, because the receiver does not know the job before. */
  cancelWanted: boolean;
  /** Ends the pending call. Only the first call has an effect. */
  readonly settle: (result: BuildResult | ReceiverError) => void;
}

export interface ClientParts {
  readonly channel: OffloaderChannel;
  readonly clock: Clock;
  readonly log: Log;
}

/** `endSession` is called after an incomplete upload, which the protocol cannot take back in any other way. */
export function createClientBuilds({ channel, clock, log }: ClientParts, endSession: () => void) {
  const jobs = new Map<string, ClientJob>();
  const uploads = createSerialQueue();
  let ended: ReceiverError | undefined;

  async function build(request: BuildRequest): Promise<BuildResult> {
    const { jobId = randomBytes(6).toString('hex'), signal } = request;
    if (ended !== undefined) throw ended;
    if (signal?.aborted === true) throw cancelled(jobId);
    if (jobs.has(jobId)) throw new ReceiverError('STATE', `the job ${quote(jobId)} is already in progress`);
    const bundle = toAnnouncedBundle(request.bundle);
    const { size: bytes } = bundle;
    if (bytes > maxBundleBytes) {
      const message = `bundle too large: at most ${maxBundleBytes} bytes are allowed, got ${bytes}`;
      throw new ReceiverError('BUNDLE', message, { bytes });
    }
    const stopListening = onAbort(signal, () => cancel(jobId));
    let cancelTimer = (): void => {};
    try {
      return await new Promise<BuildResult>((resolve, reject) => {
        const job = newJob(request, resolve, reject);
        jobs.set(jobId, job);
        void uploads.run(async () => {
          await send(jobId, job, bundle);
          cancelTimer = awaitAck(job);
        });
      });
    } finally {
      cancelTimer();
      jobs.delete(jobId);
      stopListening();
    }
  }

  /** Never rejects. */
  async function send(jobId: string, job: ClientJob, bundle: AnnouncedBundle): Promise<void> {
    if (job.phase !== 'waiting') return;
    job.phase = 'sending';
    try {
      await uploadBundle(channel, { jobId, job, bundle });
    } catch (cause) {
      log.warn({ err: cause, jobId }, 'bundle upload failed');
      if (isOver(job)) return;
      job.settle(
        new ReceiverError('BUNDLE', 'the bundle could not be read completely', { jobId }, { cause }),
      );
      endSession();
    }
  }

  function awaitAck(job: ClientJob): () => void {
    if (job.phase !== 'sending') return () => {};
    return clock.after(ackTimeoutMs, () => {
      if (job.phase !== 'sending') return;
      const message = 'the receiver did not acknowledge the job within 60 s';
      job.settle(new ReceiverError('PROTOCOL', message, { ackTimeoutMs }));
    });
  }

  function cancel(jobId: string): void {
    const job = jobs.get(jobId);
    if (job?.phase === 'waiting') job.settle(cancelled(jobId));
    else if (job?.phase === 'sending') job.cancelWanted = true;
    else channel.send({ type: 'cancel_job', job_id: jobId });
  }

  /** Errors of the caller's functions must not end the session. */
  function notify(jobId: string, call: () => void): void {
    try {
      call();
    } catch (error) {
      log.error({ err: error, jobId }, 'build listener threw');
    }
  }

  return {
    build,
    cancel,
    ack({ job_id: jobId, accepted, reason }: FrameOf<'submit_job_ack'>): void {
      const job = jobs.get(jobId);
      if (job?.phase !== 'sending') return;
      if (!accepted) return job.settle(refused(jobId, reason));
      job.phase = 'accepted';
      notify(jobId, () => job.request.onAccepted?.());
      if (job.cancelWanted) cancel(jobId);
    },
    state(frame: FrameOf<'job_state_changed'>): void {
      const { job_id: jobId, status, error_message: errorMessage, failure_reason: failureReason } = frame;
      const job = jobs.get(jobId);
      if (job === undefined || isOver(job)) return;
      notify(jobId, () => job.request.onState?.(status));
      if (status === 'queued' || status === 'running') return;
      job.settle({ jobId, status, errorMessage, ...(failureReason !== undefined && { failureReason }) });
    },
    output({ job_id: jobId, line, stream }: FrameOf<'job_output'>): void {
      const job = jobs.get(jobId);
      if (job !== undefined) notify(jobId, () => job.request.onOutput?.(line, stream));
    },
    /** Ends all pending calls with this error. */
    end(error: ReceiverError): void {
      ended = error;
      for (const job of jobs.values()) job.settle(error);
    },
  };
}

function newJob(
  request: BuildRequest,
  resolve: (result: BuildResult) => void,
  reject: (error: ReceiverError) => void,
): ClientJob {
  return {
    request,
    phase: 'waiting',
    cancelWanted: false,
    settle(result) {
      this.phase = 'over';
      if (result instanceof Error) reject(result);
      else resolve(result);
    },
  };
}

function isOver({ phase }: ClientJob): boolean {
  return phase === 'over';
}

function cancelled(jobId: string): ReceiverError {
  return new ReceiverError('CANCELLED', 'the build was cancelled before it was sent', { jobId });
}

function refused(jobId: string, reason: string | undefined): ReceiverError {
  const why = reason === undefined ? '' : `: ${quote(reason)}`;
  return new ReceiverError('REJECTED', `the receiver refused the job${why}`, { jobId, reason });
}

/** A bundle whose size and hash are known before its first byte is read. */
export interface AnnouncedBundle {
  readonly bytes: Iterable<Buffer> | AsyncIterable<Buffer>;
  readonly size: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

/** A gzip-compressed tar archive with its `manifest.json`, at most 128 MiB. */
export type Bundle = Buffer | AnnouncedBundle;

export interface BuildRequest {
  /** The name of the YAML in the bundle's manifest. */
  readonly file: string;
  readonly bundle: Bundle;
  /** Default: `compile`. */
  readonly target?: 'compile' | 'clean';
  /** Default: 12 random hex digits. Repeat the id to resume a job whose session was lost. */
  readonly jobId?: string;
  /** The ESPHome version to build with. Default: the receiver's own. */
  readonly targetVersion?: string;
  /** Omits bootloader and factory image (ESPHome 2026.10, ESP-IDF). Default: false. */
  readonly skipBootloader?: boolean;
  /** Shown to operators of the receiver. Default: empty. */
  readonly deviceName?: string;
  readonly deviceFriendlyName?: string;
  /** The receiver has recorded the job and finds it under its id from now on. */
  readonly onAccepted?: () => void;
  /** Gets one line of output, or a part of a long one, with its terminator. */
  readonly onOutput?: (line: string, stream: 'stdout' | 'stderr') => void;
  /** Gets every status, including the last one. */
  readonly onState?: (status: JobStatus) => void;
  readonly signal?: AbortSignal;
}

export interface BuildResult {
  readonly jobId: string;
  readonly status: 'completed' | 'failed' | 'cancelled';
  /** Empty if the receiver sends none. */
  readonly errorMessage: string;
  /** `provision`: the receiver could not install the requested version. */
  readonly failureReason?: string;
}

function toAnnouncedBundle(bundle: Bundle): AnnouncedBundle {
  if (!Buffer.isBuffer(bundle)) return bundle;
  return { bytes: [bundle], size: bundle.length, sha256: createHash('sha256').update(bundle).digest('hex') };
}

/** Resolves when the last byte has left, or when the job is over. Throws BUNDLE for a wrong size, and read errors. */
async function uploadBundle(
  channel: OffloaderChannel,
  { jobId, job, bundle }: { jobId: string; job: ClientJob; bundle: AnnouncedBundle },
): Promise<void> {
  const { request } = job;
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
    if (isOver(job)) return;
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
    const facts = { announced: bundle.size, sent };
    throw new ReceiverError('BUNDLE', 'the bundle does not have its announced size', facts);
  }
  await channel.drained(0);
}
