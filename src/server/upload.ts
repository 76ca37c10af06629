/**
 * One peer's bundles on their way in: an announcement, its chunks, and the hand-over to the jobs (Device Builder
 * 1.26, its checks in its order).
 *
 * The acknowledgement leaves as soon as the bytes are proved complete and the job is on record, since the other side
 * waits 60 s for it and no longer, and unpacking may take more. A store that refuses holds nothing up: the job is built,
 * and lost if this process is. A bundle that is not acknowledged leaves nothing behind. A job that is
 * announced again under its old id, as clients do after a lost connection, is found and not built twice.
 */
import type { Clock } from '../async/clock.js';
import { createSerialQueue } from '../async/serial-queue.js';
import type { BundleIntake } from '../bundles/intake.js';
import type { StagedBundle } from '../bundles/store.js';
import { TraversalError, quote } from '../errors.js';
import { isTerminal, type JobRecord, type JobRequest } from '../jobs/record.js';
import { createRefusalLog, type Log } from '../log.js';
import type { BundleLimits } from '../options/core-options.js';
import { deviceFromFile, fileName, type DashboardId, type FileName } from '../paths/index.js';
import type { ReceiverChannel } from '../protocol/channel.js';
import type { AckReason } from '../protocol/constants.js';
import type { FrameOf } from '../protocol/frames.js';
import { announcementFault, createAssembler, type Assembler } from '../protocol/transfer.js';
import { stateFrame, type Outbox } from './outbox.js';
import type { Uploads } from './connection-limits.js';
import type { IsPlaceSafe, SessionJobs, NoRoomFor, OpenIntake } from './ports.js';

/** Real ids have 12 characters; a peer must not make us keep more than this. */
const maxJobIdLength = 256;
/** Ends of uploads under way at which a peer is not read further: each holds a directory and descriptors. */
const mostUnfinished = 4;

export interface UploadHandlerDeps {
  readonly dashboardId: DashboardId;
  readonly peerLabel: string;
  readonly channel: ReceiverChannel;
  readonly outbox: Outbox;
  readonly jobs: SessionJobs;
  readonly openIntake: OpenIntake;
  readonly bundleLimits: Pick<BundleLimits, 'packedBytes'>;
  readonly isPlaceSafe: IsPlaceSafe;
  readonly noRoomFor?: NoRoomFor | undefined;
  readonly uploads: Uploads;
  /** Ends the session with `malformed_frame`. */
  readonly breach: () => void;
  /** From now on nothing is sent about that job. */
  readonly mute: (id: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface UploadHandler {
  header(frame: FrameOf<'submit_job'>): void;
  chunk(frame: FrameOf<'submit_job_chunk'>): void;
  /** A header or chunk whose fields are missing or wrong. */
  invalid(type: 'submit_job' | 'submit_job_chunk', jobId: string): void;
  /** Cancels the peer's job of that id, after all that was uploaded before. Nobody's id is ignored. */
  cancel(jobId: string): void;
  /** Whether a bundle is on its way, or not handed over yet. */
  isBusy(): boolean;
  /** Whether the peer is not being read, because the disk must catch up. */
  isPaused(): boolean;
  /** Drops a half-received bundle; resolves when nothing of it is left. */
  end(): Promise<void>;
}

interface IncomingUpload {
  readonly request: JobRequest;
  readonly assembler: Assembler;
  readonly intake: BundleIntake;
  /** Counts it off. */
  readonly over: () => void;
}

export function createUploadHandler(parts: UploadHandlerDeps): UploadHandler {
  const { dashboardId, channel, jobs, uploads, clock, log } = parts;
  const warnRefused = createRefusalLog(log, clock);
  const maxUnfinished = Math.min(mostUnfinished, uploads.maxUploadsPerPeer - 1);
  let upload: IncomingUpload | undefined;
  /** Why the peer is not being read: a full intake, or too much that was begun and is not done. */
  let holds = 0;
  let unfinished = 0;
  let draining: BundleIntake | undefined;
  let ended = false;
  /** Ends of uploads and what must come after them. */
  const turns = createSerialQueue();

  function accept(jobId: string): void {
    channel.send({ type: 'submit_job_ack', job_id: jobId, accepted: true });
  }

  /** A dashboard shows its user the reason as it stands, so a word may be followed by what it means here. */
  function refuse(jobId: string, word: AckReason, detail?: string): void {
    const reason = detail === undefined ? word : `${word}: ${detail}`;
    warnRefused({ dashboardId, peerJobId: quote(jobId), reason }, 'upload refused');
    channel.send({ type: 'submit_job_ack', job_id: jobId, accepted: false, reason });
  }

  function hold(): void {
    holds += 1;
    if (holds === 1) channel.pause();
  }

  function letGo(): void {
    holds -= 1;
    if (holds === 0) channel.resume();
  }

  function later(work: () => Promise<void>): void {
    unfinished += 1;
    if (unfinished === maxUnfinished) hold();
    void turns.run(async () => {
      try {
        await work();
      } catch (error) {
        log.error({ err: error, dashboardId }, 'upload cleanup failed');
      }
      if (unfinished === maxUnfinished) letGo();
      unfinished -= 1;
    });
  }

  function drop(): void {
    const dropped = upload;
    upload = undefined;
    if (dropped) later(() => dropped.intake.abort().finally(dropped.over));
  }

  function header(frame: FrameOf<'submit_job'>): void {
    const { file, rule } = readName(frame.configuration_filename);
    if (file === undefined) return refuse(frame.job_id, 'invalid_header', `the file name: ${rule}`);
    if (frame.job_id.length > maxJobIdLength) {
      return refuse(frame.job_id, 'invalid_header', `job_id is longer than ${maxJobIdLength} characters`);
    }
    if (upload) return refuse(frame.job_id, 'duplicate_submit');
    const { target } = frame;
    if (target === 'upload') return refuse(frame.job_id, 'upload_unsupported');
    if (target !== 'compile' && target !== 'clean') return refuse(frame.job_id, 'invalid_header');
    const announced = {
      totalBytes: frame.total_bundle_bytes,
      numChunks: frame.num_chunks,
      sha256: frame.bundle_sha256,
    };
    const fault = announcementFault(announced, parts.bundleLimits.packedBytes);
    if (fault) return refuse(frame.job_id, fault);
    // A clean makes room.
    const none = target === 'compile' ? parts.noRoomFor?.(dashboardId, frame.total_bundle_bytes) : null;
    if (none) return refuse(frame.job_id, none.reason, none.detail);
    const over = uploads.begin(dashboardId);
    if (!over) return refuse(frame.job_id, 'duplicate_submit');
    upload = {
      request: {
        dashboardId,
        peerLabel: parts.peerLabel,
        peerJobId: frame.job_id,
        file,
        device: deviceFromFile(file),
        target,
        bundleSha256: frame.bundle_sha256,
        targetVersion: frame.target_esphome_version,
        skipBootloader: frame.skip_bootloader,
        deviceName: frame.device_name,
        deviceFriendlyName: frame.device_friendly_name,
      },
      assembler: createAssembler(announced),
      intake: parts.openIntake(file),
      over,
    };
  }

  function chunk(frame: FrameOf<'submit_job_chunk'>): void {
    if (!upload) return refuse(frame.job_id, 'no_inflight_submit');
    if (frame.job_id !== upload.request.peerJobId) return refuse(frame.job_id, 'job_id_mismatch');
    const { chunk_index: index, data_b64: dataBase64, is_last: isLast } = frame;
    const result = upload.assembler.push({ index, dataBase64, isLast });
    if (!result.ok) {
      drop();
      refuse(frame.job_id, result.reason);
      if (result.fatal) parts.breach();
      return;
    }
    if (result.bytes.length > 0 && !upload.intake.write(result.bytes)) pauseFor(upload.intake);
    if (!result.complete) return;
    const complete = upload;
    upload = undefined;
    later(() => handOver(complete).finally(complete.over));
  }

  /** The session's other direction goes on meanwhile. */
  function pauseFor(intake: BundleIntake): void {
    if (draining === intake) return;
    draining = intake;
    hold();
    void intake.drain().then(() => {
      if (draining === intake) draining = undefined;
      letGo();
      return undefined;
    });
  }

  async function handOver({ request, intake }: IncomingUpload): Promise<void> {
    const isSafe = await isPlaceSafe(request);
    if (ended) return intake.abort();
    if (!isSafe) {
      refuse(request.peerJobId, 'invalid_header');
      return intake.abort();
    }
    const older = jobs.find(dashboardId, request.peerJobId);
    if (older && isRepeated(older, request)) {
      accept(request.peerJobId);
      const present = stateFrame(older);
      if (present) parts.outbox.state(present);
      return intake.abort();
    }
    if (older && !isTerminal(older)) {
      // Its `cancelled` would otherwise go out under the id that now means the newer job.
      parts.mute(older.id);
      jobs.cancel(older.id);
    }
    submit(request, intake.finish());
  }

  async function isPlaceSafe(request: JobRequest): Promise<boolean> {
    try {
      return await parts.isPlaceSafe(request);
    } catch (error) {
      log.error({ err: error, dashboardId }, 'job directory check failed');
      return false;
    }
  }

  /** What is acknowledged ends in a state that the peer hears of, come what may. */
  function submit(request: JobRequest, staged: Promise<StagedBundle>): void {
    try {
      jobs.submit(request, staged, () => accept(request.peerJobId));
    } catch (error) {
      log.error({ err: error, dashboardId }, 'job not queued');
      staged.then((bundle) => bundle.discard()).catch(() => {});
      accept(request.peerJobId);
      parts.outbox.state({
        type: 'job_state_changed',
        job_id: request.peerJobId,
        status: 'failed',
        error_message: 'queue_rejected: the receiver could not queue the job',
      });
    }
  }

  return {
    header,
    chunk,
    invalid(type, jobId) {
      refuse(jobId, type === 'submit_job' ? 'invalid_header' : 'invalid_chunk');
      parts.breach();
    },
    cancel(jobId) {
      later(async () => void jobs.cancelByPeer(dashboardId, jobId));
    },
    isBusy: () => upload !== undefined || unfinished > 0,
    isPaused: () => holds > 0,
    async end() {
      ended = true;
      drop();
      await turns.idle();
    },
  };
}

/** The name when it is acceptable, else the rule that it breaks. */
function readName(text: string): { readonly file?: FileName; readonly rule?: string } {
  try {
    return { file: fileName(text) };
  } catch (error) {
    if (error instanceof TraversalError) return { rule: error.rule };
    throw error;
  }
}

/** Whether the request is for the job that is there already. */
function isRepeated(job: JobRecord, request: JobRequest): boolean {
  return (
    job.bundleSha256 === request.bundleSha256 &&
    job.target === request.target &&
    job.targetVersion === request.targetVersion &&
    job.skipBootloader === request.skipBootloader
  );
}
