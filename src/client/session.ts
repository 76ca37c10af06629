/**
 * The session with a receiver: uploads, output and states of builds, downloads. When it ends, for any reason, every
 * pending call fails with that reason; a build continues at the receiver and can be resumed with the same job id.
 */
import { onAbort } from '../async/calls.js';
import { createEmitter } from '../async/signals.js';
import { quote, ReceiverError } from '../errors.js';
import type { FrameOf, ToOffloader } from '../protocol/frames.js';
import type { Initiated } from '../protocol/handshake.js';
import { startHeartbeat, waitForClose } from '../protocol/heartbeat.js';
import { type BuildRequest, type BuildResult, type ClientParts, createClientBuilds } from './builds.js';
import { createDownloads, type Artifacts, type SavedArtifacts } from './downloads.js';

/** Whether the receiver is free to compile. */
export interface ServerQueueStatus {
  readonly idle: boolean;
  readonly running: boolean;
  /** The number of waiting jobs, without the running one. */
  readonly queueDepth: number;
}

export interface OffloaderSession {
  readonly receiver: ReceiverInfo;
  /**
   * Sends a bundle and resolves when its job has ended, in any state. Uploads run one after the other, jobs in parallel.
   * Throws REJECTED with the receiver's `reason` when the job is refused, PROTOCOL when the session ends or no
   * acknowledgement arrives within 60 s, BUNDLE when the bundle is not as announced, CANCELLED when it was aborted before
   * it was sent. A later abort cancels the job at the receiver, and the call resolves with its state.
   */
  build(request: BuildRequest): Promise<BuildResult>;
  /** Asks the receiver to stop a job. Its build then resolves, usually with `cancelled`. */
  cancel(jobId: string): void;
  /**
   * Downloads the result of a completed job into memory, one download at a time. Throws REJECTED with `reason` and
   * `detail`, and PROTOCOL when the stream breaks a rule, the hash is wrong, or the session ends.
   */
  downloadArtifacts(jobId: string): Promise<Artifacts>;
  /** Downloads into a file, which exists only once it is complete. Also throws system errors. */
  saveArtifacts(jobId: string, path: string): Promise<SavedArtifacts>;
  /** The latest status, or undefined before the first. */
  queueStatus(): ServerQueueStatus | undefined;
  /** Calls back on each new status. The returned function ends that. */
  onQueueStatus(listener: (status: ServerQueueStatus) => void): () => void;
  /** Resolves to the reason of the end: the receiver's reason, `hung_up` if it sent none, `closed` by us. Never rejects. */
  readonly ended: Promise<string>;
  /** Ends the session in good order; resolves when the connection has closed. */
  close(): Promise<void>;
}

/** Starts on a channel whose receiver has answered `ok`. The signal's abort closes the session. */
export function startSession(
  parts: ClientParts,
  receiver: ReceiverInfo,
  signal: AbortSignal | undefined,
): OffloaderSession {
  const { channel, clock, log } = parts;
  const builds = createClientBuilds(parts, () => end('client_stopped', 'bundle_failed'));
  const downloads = createDownloads(channel);
  const listeners = createEmitter<ServerQueueStatus>('queue status', log);
  let latest: ServerQueueStatus | undefined;
  let why: string | undefined;
  let stopListening = (): void => {};

  /** Only the first call has an effect. `word` is sent to the receiver; undefined closes the channel without a frame. */
  function end(word: 'client_stopped' | 'malformed_frame' | undefined, reason: string): void {
    if (why !== undefined) return;
    why = reason;
    heartbeat.stop();
    stopListening();
    const error = new ReceiverError('PROTOCOL', `the session ended: ${quote(reason)}`, { reason });
    builds.end(error);
    downloads.end(error);
    if (word === undefined) channel.close();
    else channel.terminate(word);
    void waitForClose(channel, clock);
  }

  const heartbeat = startHeartbeat({
    clock,
    ping: (nonce) => channel.send({ type: 'ping', nonce }),
    dead: () => end(undefined, 'heartbeat_timeout'),
    isPaused: downloads.isPaused,
  });

  const ended = new Promise<string>((resolve) => {
    channel.open({
      anyDecryptedFrame: () => heartbeat.alive(),
      frame(parsed) {
        if (parsed.kind === 'frame') handle(parsed.frame);
        else log.debug({ type: parsed.type, kind: parsed.kind }, 'frame ignored');
      },
      malformed: () => end('malformed_frame', 'malformed_frame'),
      closed() {
        end(undefined, 'hung_up');
        resolve(why ?? 'hung_up');
      },
    });
  });
  stopListening = onAbort(signal, () => end('client_stopped', 'closed'));

  function handle(frame: ToOffloader): void {
    switch (frame.type) {
      case 'ping':
        channel.send({ type: 'pong', nonce: frame.nonce });
        return;
      case 'terminate':
        return end(undefined, frame.reason);
      case 'queue_status':
        latest = queueStatusOf(frame);
        return listeners.emit(latest);
      case 'submit_job_ack':
        return builds.ack(frame);
      case 'job_state_changed':
        return builds.state(frame);
      case 'job_output':
        return builds.output(frame);
      case 'artifacts_start':
        return downloads.start(frame);
      case 'artifacts_chunk':
        return downloads.chunk(frame);
      case 'artifacts_end':
        return downloads.finish(frame);
      case 'pong':
      case 'reset_build_env_ack':
        return;
    }
  }

  return {
    receiver,
    build: (request) => builds.build(request),
    cancel: (jobId) => builds.cancel(jobId),
    downloadArtifacts: (jobId) => downloads.toMemory(jobId),
    saveArtifacts: (jobId, path) => downloads.toFile(jobId, path),
    queueStatus: () => latest,
    onQueueStatus: (listener) => listeners.subscribe(listener),
    ended,
    async close() {
      end('client_stopped', 'closed');
      await ended;
    },
  };
}

function queueStatusOf({ idle, running, queue_depth }: FrameOf<'queue_status'>): ServerQueueStatus {
  return { idle, running, queueDepth: queue_depth };
}

/** Facts about a receiver from its answer to any intent. */
export interface ReceiverInfo {
  /** SHA-256 of its key in lower-case hex. The handshake proves it, but none of the other facts. */
  readonly pin: string;
  /** The installed ESPHome version, empty if unknown. */
  readonly esphomeVersion: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** Whether it can install the ESPHome version that a job requests. */
  readonly autoProvisionSupported: boolean;
  /** Whether pairing needs the receiver's pairing key. Known only from a preview. */
  readonly requiresPairingKey: boolean;
}

export function infoOf({ answer, peerPin }: Initiated): ReceiverInfo {
  return {
    pin: peerPin,
    esphomeVersion: answer.esphome_version,
    friendlyName: answer.friendly_name,
    haAddon: answer.ha_addon,
    autoProvisionSupported: answer.auto_provision_supported,
    requiresPairingKey: answer.requires_pairing_key === true,
  };
}
