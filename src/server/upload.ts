/**
 * Receives one peer's bundles: the header, its chunks, and the submission of the job (Device Builder 1.26, its checks in
 * its order). The acknowledgement is sent as soon as the bytes are complete and the job is recorded, because the client
 * waits only 60 s for it and unpacking can take longer. A job that cannot be recorded is refused, because a crash would
 * lose it. A bundle without acknowledgement leaves no file. A job that is submitted again under its old id, as clients do
 * after a lost connection, is found and not built twice.
 */
import { createSerialQueue } from '../async/calls.js';
import type { BundleIntake } from '../bundles/intake.js';
import type { StagedBundle } from '../bundles/store.js';
import { hostFaultOf, isDiskFull, TraversalError, quote } from '../errors.js';
import { isTerminal, type JobRecord, type JobRequest } from '../jobs/record.js';
import { createRefusalLog } from '../log.js';
import { deviceFromFile, fileName, type FileName } from '../paths/index.js';
import type { AckReason } from '../protocol/constants.js';
import type { FrameOf } from '../protocol/frames.js';
import { announcementFault, createAssembler, type Assembler } from '../protocol/transfer.js';
import { stateFrame, type Outbox } from './outbox.js';
import type { PeerSessionDeps } from './ports.js';

/** Real ids have 12 characters; longer ones must not fill our memory. */
const maxJobIdLength = 256;
/** The number of uploads being finished at which reading pauses: each holds a directory and descriptors. */
const mostUnfinished = 4;

interface UploadHandlerDeps extends PeerSessionDeps {
  readonly outbox: Outbox;
  /** Ends the session with `malformed_frame`. */
  readonly endMalformed: () => void;
}

interface IncomingUpload {
  readonly request: JobRequest;
  readonly assembler: Assembler;
  readonly intake: BundleIntake;
  /** Lowers the peer's count of uploads. */
  readonly release: () => void;
}

export function createUploadHandler(parts: UploadHandlerDeps) {
  const { dashboardId, channel, jobs, uploads, clock, log } = parts;
  const warnRefused = createRefusalLog(log, clock);
  const maxUnfinished = Math.min(mostUnfinished, uploads.maxUploadsPerPeer - 1);
  let upload: IncomingUpload | undefined;
  /** The upload that was refused half-way: its other chunks are already on the way. */
  let refusedId: string | undefined;
  /** The reasons to pause reading: a full intake, too many unfinished uploads. */
  let pauses = 0;
  let unfinished = 0;
  let draining: BundleIntake | undefined;
  let ended = false;
  /** The ends of uploads, and the steps that must follow them. */
  const steps = createSerialQueue();

  function accept(jobId: string): void {
    channel.send({ type: 'submit_job_ack', job_id: jobId, accepted: true });
  }

  /** A dashboard shows its user the reason unchanged, so a detail can follow the word. */
  function refuse(jobId: string, word: AckReason, detail?: string): void {
    const reason = detail === undefined ? word : `${word}: ${detail}`;
    warnRefused({ dashboardId, peerJobId: quote(jobId), reason }, 'upload refused');
    channel.send({ type: 'submit_job_ack', job_id: jobId, accepted: false, reason });
  }

  function pause(): void {
    pauses += 1;
    if (pauses === 1) channel.pause();
  }

  function resume(): void {
    pauses -= 1;
    if (pauses === 0) channel.resume();
  }

  /** Queues the end of an upload, or a step that must follow it. */
  function enqueue(step: () => Promise<void>): void {
    unfinished += 1;
    if (unfinished === maxUnfinished) pause();
    void steps.run(async () => {
      try {
        await step();
      } catch (error) {
        log.error({ err: error, dashboardId }, 'upload cleanup failed');
      }
      if (unfinished === maxUnfinished) resume();
      unfinished -= 1;
    });
  }

  /** Ends an upload whatever fails, so that no place of the peer is lost. */
  async function ending({ release }: IncomingUpload, end: () => Promise<void>): Promise<void> {
    try {
      await end();
    } finally {
      release();
    }
  }

  function dropUpload(): void {
    const dropped = upload;
    upload = undefined;
    if (dropped) enqueue(() => ending(dropped, async () => dropped.intake.abort()));
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
    // A clean frees space, so it is never refused for want of it.
    const noRoom = target === 'compile' ? parts.noRoomFor?.(dashboardId, frame.total_bundle_bytes) : null;
    if (noRoom) return refuse(frame.job_id, noRoom.reason, noRoom.detail);
    const request: JobRequest = {
      dashboardId,
      peerLabel: parts.peerLabel,
      peerJobId: frame.job_id,
      lane: parts.lane,
      file,
      device: deviceFromFile(file),
      target,
      bundleSha256: frame.bundle_sha256,
      targetVersion: frame.target_esphome_version,
      skipBootloader: frame.skip_bootloader,
      deviceName: frame.device_name,
      deviceFriendlyName: frame.device_friendly_name,
    };
    const assembler = createAssembler(announced);
    const release = uploads.begin(dashboardId);
    refusedId = undefined;
    if (!release) return refuse(frame.job_id, 'duplicate_submit');
    try {
      const intake = parts.openIntake(request, ({ reason, detail }) => {
        // A job that was submitted meanwhile fails with the same words.
        if (upload?.intake !== intake) return;
        dropUpload();
        refusedId = frame.job_id;
        refuse(frame.job_id, reason, detail);
      });
      upload = { request, assembler, intake, release };
    } catch (error) {
      release();
      log.error({ err: error, dashboardId }, 'upload start failed');
      refuse(frame.job_id, 'not_ready', 'the build server cannot unpack bundles now; its log says why');
    }
  }

  function chunk(frame: FrameOf<'submit_job_chunk'>): void {
    if (!upload && frame.job_id === refusedId) return;
    if (!upload) return refuse(frame.job_id, 'no_inflight_submit');
    if (frame.job_id !== upload.request.peerJobId) return refuse(frame.job_id, 'job_id_mismatch');
    const { chunk_index: index, data_b64: dataBase64, is_last: isLast } = frame;
    const result = upload.assembler.push({ index, dataBase64, isLast });
    if (!result.ok) {
      dropUpload();
      refuse(frame.job_id, result.reason);
      if (result.fatal) parts.endMalformed();
      return;
    }
    if (result.bytes.length > 0 && !upload.intake.write(result.bytes)) pauseFor(upload.intake);
    if (!result.complete) return;
    const complete = upload;
    upload = undefined;
    enqueue(() => ending(complete, async () => finishUpload(complete)));
  }

  /** Pauses reading only; sending continues. */
  function pauseFor(intake: BundleIntake): void {
    if (draining === intake) return;
    draining = intake;
    pause();
    void intake.drain().then(() => {
      if (draining === intake) draining = undefined;
      resume();
      return undefined;
    });
  }

  async function finishUpload({ request, intake }: IncomingUpload): Promise<void> {
    const isSafe = await isPlaceSafe(request);
    if (ended) return intake.abort();
    if (!isSafe) {
      refuse(request.peerJobId, 'invalid_header');
      return intake.abort();
    }
    const older = jobs.find(dashboardId, request.peerJobId);
    if (older && !isTerminal(older) && older.lane !== request.lane) {
      refuse(request.peerJobId, 'duplicate_submit', `lane ${older.lane} already has a job with this id`);
      return intake.abort();
    }
    if (older && isRepeated(older, request)) {
      accept(request.peerJobId);
      const present = stateFrame(older);
      if (present) parts.outbox.state(present);
      return intake.abort();
    }
    await submit(request, intake.finish(), older);
  }

  async function isPlaceSafe(request: JobRequest): Promise<boolean> {
    try {
      return await parts.isPlaceSafe(request);
    } catch (error) {
      log.error({ err: error, dashboardId }, 'job directory check failed');
      return false;
    }
  }

  /**
   * Resolves when the job was answered, so that the answers keep the order of the uploads. An accepted job always ends in a
   * state that is sent to the peer.
   */
  function submit(request: JobRequest, staged: Promise<StagedBundle>, older?: JobRecord): Promise<void> {
    return new Promise((resolve) => {
      try {
        jobs.submit(request, staged, (fault) => {
          resolve();
          if (fault === null) {
            // A refused job replaces no other. The `cancelled` of the older one would be sent under the id of the newer.
            if (older && !isTerminal(older)) {
              parts.mute(older.id);
              jobs.cancel(older.id);
            }
            return accept(request.peerJobId);
          }
          const detail = hostFaultOf(fault.error)?.message ?? 'the build server could not store the job';
          return refuse(request.peerJobId, isDiskFull(fault.error) ? 'disk_full' : 'not_ready', detail);
        });
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
        resolve();
      }
    });
  }

  return {
    header,
    chunk,
    /** Refuses a header or chunk with missing or wrong fields, and ends the session. */
    invalid(type: 'submit_job' | 'submit_job_chunk', jobId: string): void {
      refuse(jobId, type === 'submit_job' ? 'invalid_header' : 'invalid_chunk');
      parts.endMalformed();
    },
    /** Cancels the peer's job with this id after all earlier uploads. Ignores an unknown id. */
    cancel(jobId: string): void {
      enqueue(async () => void jobs.cancelByPeer(dashboardId, jobId));
    },
    /** Whether a bundle is being received or submitted. */
    isBusy: () => upload !== undefined || unfinished > 0,
    /** Whether reading is paused until the disk catches up. */
    isPaused: () => pauses > 0,
    /** Drops an incomplete bundle; resolves when its files are removed. */
    async end(): Promise<void> {
      ended = true;
      dropUpload();
      await steps.idle();
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

/** Whether the request repeats an existing job. */
function isRepeated(job: JobRecord, request: JobRequest): boolean {
  return (
    job.bundleSha256 === request.bundleSha256 &&
    job.target === request.target &&
    job.targetVersion === request.targetVersion &&
    job.skipBootloader === request.skipBootloader
  );
}
