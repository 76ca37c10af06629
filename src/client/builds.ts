/**
 * The jobs of one session: a bundle goes up in chunks, an ack and states come back, and exactly one of them ends
 * the call that waits (Device Builder 1.26).
 */
import { randomBytes, createHash } from 'node:crypto';

import { onAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/serial-queue.js';
import { quote, ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import { lowWaterBytes, type OffloaderChannel } from '../protocol/channel.js';
import type { JobStatus } from '../protocol/constants.js';
import type { FrameOf } from '../protocol/frames.js';
import { maxBundleBytes, chunkBytes, inChunks } from '../protocol/transfer.js';

const ackTimeoutMs = 60_000;

export interface ClientBuilds {
  build(request: BuildRequest): Promise<BuildResult>;
  cancel(jobId: string): void;
  ack(frame: FrameOf<'submit_job_ack'>): void;
  state(frame: FrameOf<'job_state_changed'>): void;
  output(frame: FrameOf<'job_output'>): void;
  /** The session is over: whoever waits throws this. */
  end(error: ReceiverError): void;
}

export interface ClientBuildsDeps {
  readonly channel: OffloaderChannel;
  readonly clock: Clock;
  readonly log: Log;
  /** Ends the session: an upload has stopped half-way, and the protocol has no other way to take it back. */
  readonly breakOff: () => void;
}

interface ClientJob {
  readonly request: BuildRequest;
  phase: 'waiting' | 'sending' | 'accepted' | 'over';
  /** A cancellation waits for the ack: before it the receiver would not know the job. */
  cancelWanted: boolean;
  /** Ends the call. Only the first call counts. */
  readonly settle: (result: BuildResult | ReceiverError) => void;
}

export function createClientBuilds({ channel, clock, log, breakOff }: ClientBuildsDeps): ClientBuilds {
  const jobs = new Map<string, ClientJob>();
  const uploads = createSerialQueue();
  let ended: ReceiverError | undefined;

  async function build(request: BuildRequest): Promise<BuildResult> {
    const { jobId = randomBytes(6).toString('hex'), signal } = request;
    if (ended !== undefined) throw ended;
    if (signal?.aborted === true) throw cancelled(jobId);
    if (jobs.has(jobId)) throw new ReceiverError('STATE', `the job ${quote(jobId)} is under way already`);
    const bundle = toAnnouncedBundle(request.bundle);
    if (bundle.size > maxBundleBytes) {
      throw new ReceiverError('BUNDLE', `the bundle is over ${maxBundleBytes} bytes`, { bytes: bundle.size });
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
  async function send(
    jobId: string,
    job: ClientJob,
    bundle: ReturnType<typeof toAnnouncedBundle>,
  ): Promise<void> {
    if (job.phase !== 'waiting') return;
    job.phase = 'sending';
    try {
      const isOver = (): boolean => job.phase === 'over';
      await uploadBundle({ channel, jobId, request: job.request, bundle, isOver });
    } catch (cause) {
      log.warn({ err: cause, jobId }, 'bundle upload failed');
      if (isOverNow(job)) return;
      job.settle(
        new ReceiverError('BUNDLE', 'the bundle could not be read to its end', { jobId }, { cause }),
      );
      breakOff();
    }
  }

  function awaitAck(job: ClientJob): () => void {
    if (job.phase !== 'sending') return () => {};
    return clock.after(ackTimeoutMs, () => {
      if (job.phase === 'sending') {
        job.settle(
          new ReceiverError('PROTOCOL', 'the receiver did not acknowledge the job', { ackTimeoutMs }),
        );
      }
    });
  }

  function cancel(jobId: string): void {
    const job = jobs.get(jobId);
    if (job?.phase === 'waiting') job.settle(cancelled(jobId));
    else if (job?.phase === 'sending') job.cancelWanted = true;
    else channel.send({ type: 'cancel_job', job_id: jobId });
  }

  /** Calls a function of the caller's, whose errors must not end the session. */
  function tell(jobId: string, call: () => void): void {
    try {
      call();
    } catch (error) {
      log.error({ err: error, jobId }, 'build listener threw');
    }
  }

  return {
    build,
    cancel,
    ack({ job_id: jobId, accepted, reason }) {
      const job = jobs.get(jobId);
      if (job?.phase !== 'sending') return;
      if (!accepted) return job.settle(refused(jobId, reason));
      job.phase = 'accepted';
      tell(jobId, () => job.request.onAccepted?.());
      if (job.cancelWanted) cancel(jobId);
    },
    state({ job_id: jobId, status, error_message: errorMessage, failure_reason: failureReason }) {
      const job = jobs.get(jobId);
      if (job === undefined || isOverNow(job)) return;
      tell(jobId, () => job.request.onState?.(status));
      if (status === 'queued' || status === 'running') return;
      job.settle({ jobId, status, errorMessage, ...(failureReason !== undefined && { failureReason }) });
    },
    output({ job_id: jobId, line, stream }) {
      const job = jobs.get(jobId);
      if (job !== undefined) tell(jobId, () => job.request.onOutput?.(line, stream));
    },
    end(error) {
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
  const job: ClientJob = {
    request,
    phase: 'waiting',
    cancelWanted: false,
    settle(result) {
      job.phase = 'over';
      if (result instanceof Error) reject(result);
      else resolve(result);
    },
  };
  return job;
}

function isOverNow({ phase }: ClientJob): boolean {
  return phase === 'over';
}

function cancelled(jobId: string): ReceiverError {
  return new ReceiverError('CANCELLED', 'the build was cancelled before it was sent', { jobId });
}

function refused(jobId: string, reason: string | undefined): ReceiverError {
  const why = reason === undefined ? '' : `: ${quote(reason)}`;
  return new ReceiverError('REJECTED', `the receiver refused the job${why}`, { jobId, reason });
}

/** What a caller of a session asks for, and what comes of it. */

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
  /** The YAML's name as the bundle's manifest has it. */
  readonly file: string;
  readonly bundle: Bundle;
  /** Default `compile`. */
  readonly target?: 'compile' | 'clean';
  /** Default: 12 random hex digits. The same id again takes up a job whose session was lost. */
  readonly jobId?: string;
  /** The ESPHome version to build with. Default: the receiver's own. */
  readonly targetVersion?: string;
  /** Leaves bootloader and factory image out (ESPHome 2026.10, ESP-IDF). Default false. */
  readonly skipBootloader?: boolean;
  /** For people at the receiver. Default ''. */
  readonly deviceName?: string;
  readonly deviceFriendlyName?: string;
  /** The receiver has the whole bundle and the job on record: from now on it is found again under its id. */
  readonly onAccepted?: () => void;
  /** One piece of output with its terminator. */
  readonly onOutput?: (line: string, stream: 'stdout' | 'stderr') => void;
  /** Every status, the last one too. */
  readonly onState?: (status: JobStatus) => void;
  readonly signal?: AbortSignal;
}

export interface BuildResult {
  readonly jobId: string;
  readonly status: 'completed' | 'failed' | 'cancelled';
  /** '' when the receiver gives none. */
  readonly errorMessage: string;
  /** `provision`: the receiver could not install the wanted version. */
  readonly failureReason?: string;
}

/**
 * One bundle on its way up: announced, then chunk by chunk as the connection takes it, so that the session's pings
 * and pongs never wait behind a whole bundle.
 */
function toAnnouncedBundle(bundle: Bundle): AnnouncedBundle {
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
async function uploadBundle({ channel, jobId, request, bundle, isOver }: UploadParts): Promise<void> {
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
