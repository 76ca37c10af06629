/**
 * The jobs of one session: a bundle goes up in chunks, an ack and states come back, and exactly one of them ends
 * the call that waits (Device Builder 1.26).
 */
import { randomBytes } from 'node:crypto';

import { maxBundleBytes } from '../bundles/assembler.js';
import { messageOf, quote, ReceiverError } from '../errors.js';
import type { OffloaderChannel } from '../link/channel.js';
import type { FrameOf } from '../link/frames.js';
import type { Log } from '../log.js';
import type { Clock } from '../peers/clock.js';
import type { BuildRequest, BuildResult } from './build-request.js';
import { createTurns } from './turns.js';
import { toAnnouncedBundle, uploadBundle } from './upload.js';

const ackTimeoutMs = 60_000;

export interface Builds {
  build(request: BuildRequest): Promise<BuildResult>;
  cancel(jobId: string): void;
  ack(frame: FrameOf<'submit_job_ack'>): void;
  state(frame: FrameOf<'job_state_changed'>): void;
  output(frame: FrameOf<'job_output'>): void;
  /** The session is over: whoever waits throws this. */
  end(error: ReceiverError): void;
}

export interface BuildsParts {
  readonly channel: OffloaderChannel;
  readonly clock: Clock;
  readonly log: Log;
  /** Ends the session: an upload has stopped half-way, and the protocol has no other way to take it back. */
  readonly breakOff: () => void;
}

interface Job {
  readonly request: BuildRequest;
  phase: 'waiting' | 'sending' | 'accepted' | 'over';
  /** A cancellation waits for the ack: before it the receiver would not know the job. */
  cancelWanted: boolean;
  /** Ends the call. Only the first call counts. */
  readonly settle: (result: BuildResult | ReceiverError) => void;
}

export function createBuilds({ channel, clock, log, breakOff }: BuildsParts): Builds {
  const jobs = new Map<string, Job>();
  const uploads = createTurns();
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
    const onAbort = (): void => cancel(jobId);
    signal?.addEventListener('abort', onAbort, { once: true });
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
      signal?.removeEventListener('abort', onAbort);
    }
  }

  /** Never rejects. */
  async function send(jobId: string, job: Job, bundle: ReturnType<typeof toAnnouncedBundle>): Promise<void> {
    if (job.phase !== 'waiting') return;
    job.phase = 'sending';
    try {
      const isOver = (): boolean => job.phase === 'over';
      await uploadBundle({ channel, jobId, request: job.request, bundle, isOver });
    } catch (cause) {
      log.warn({ cause: messageOf(cause), jobId }, 'a bundle could not be sent to its end');
      if (isOverNow(job)) return;
      job.settle(
        new ReceiverError('BUNDLE', 'the bundle could not be read to its end', { jobId }, { cause }),
      );
      breakOff();
    }
  }

  function awaitAck(job: Job): () => void {
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
      log.error({ cause: messageOf(error), jobId }, 'a listener of a build threw');
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
): Job {
  const job: Job = {
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

function isOverNow({ phase }: Job): boolean {
  return phase === 'over';
}

function cancelled(jobId: string): ReceiverError {
  return new ReceiverError('CANCELLED', 'the build was cancelled before it was sent', { jobId });
}

function refused(jobId: string, reason: string | undefined): ReceiverError {
  const why = reason === undefined ? '' : `: ${quote(reason)}`;
  return new ReceiverError('REJECTED', `the receiver refused the job${why}`, { jobId, reason });
}
