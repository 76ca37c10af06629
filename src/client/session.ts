/**
 * The long session with a receiver: builds go up, their output and states come back, finished files come down.
 *
 * Whatever ends it, from whichever side, every call that still waits is told so: a build whose session is lost goes
 * on at the receiver, and can be asked for again with the same job id.
 */
import { onAbort } from '../async/abort.js';
import type { Clock } from '../async/clock.js';
import { createEmitter } from '../async/emitter.js';
import { quote, ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { OffloaderChannel } from '../protocol/channel.js';
import type { FrameOf, ToOffloader } from '../protocol/frames.js';
import type { Initiated } from '../protocol/handshake.js';
import { startHeartbeat } from '../protocol/heartbeat.js';
import { type BuildRequest, type BuildResult, createClientBuilds } from './builds.js';
import { createDownloads, type Artifacts, type SavedArtifacts } from './downloads.js';

const closeGraceMs = 5_000;

/** Whether the receiver is free to compile. */
export interface ServerQueueStatus {
  readonly idle: boolean;
  readonly running: boolean;
  /** Jobs that wait, the running one not counted. */
  readonly queueDepth: number;
}

export interface OffloaderSession {
  readonly receiver: ReceiverInfo;
  /**
   * Sends a bundle and resolves when its job has ended, well or not. Uploads go one after the other, jobs run side
   * by side. Throws REJECTED with the receiver's `reason` when the job is refused, PROTOCOL when the session ends
   * or no answer comes within 60 s, BUNDLE when the bundle is not as announced, CANCELLED when it was aborted
   * before it was sent. Aborted later, it is cancelled there and resolves with what became of it.
   */
  build(request: BuildRequest): Promise<BuildResult>;
  /** Asks the receiver to stop a job. Its build then resolves, as a rule with `cancelled`. */
  cancel(jobId: string): void;
  /**
   * Fetches what a completed job has made, into memory. One download at a time, others wait. Throws REJECTED with
   * `reason` and `detail`, and PROTOCOL when the stream breaks a rule, its hash is wrong, or the session ends.
   */
  downloadArtifacts(jobId: string): Promise<Artifacts>;
  /** The same into a file, which is there only when it is complete. Throws system errors as well. */
  saveArtifacts(jobId: string, path: string): Promise<SavedArtifacts>;
  /** The latest word of the receiver, undefined before the first. */
  queueStatus(): ServerQueueStatus | undefined;
  /** Calls back on each further word; the returned function ends that. */
  onQueueStatus(listener: (status: ServerQueueStatus) => void): () => void;
  /** Why the session has ended: the receiver's word, `hung_up` without one, `closed` by us. Never rejects. */
  readonly ended: Promise<string>;
  /** Takes leave of the receiver and resolves when the connection is gone. */
  close(): Promise<void>;
}

export interface ClientSessionDeps {
  readonly channel: OffloaderChannel;
  readonly receiver: ReceiverInfo;
  readonly clock: Clock;
  readonly log: Log;
  /** Its abort closes the session. */
  readonly signal?: AbortSignal;
}

/** Begins on a channel whose receiver has answered `ok`. */
export function startSession(parts: ClientSessionDeps): OffloaderSession {
  const { channel, receiver, clock, log, signal } = parts;
  const builds = createClientBuilds({
    channel,
    clock,
    log,
    breakOff: () => end('client_stopped', 'bundle_failed'),
  });
  const downloads = createDownloads(channel);
  const listeners = createEmitter<ServerQueueStatus>('queue status', log);
  let latest: ServerQueueStatus | undefined;
  let why: string | undefined;
  let cancelCut = (): void => {};
  let stopListening = (): void => {};

  /** Only the first call counts. `word` is what the receiver is told; without one it has spoken last. */
  function end(word: 'client_stopped' | 'malformed_frame' | undefined, reason: string): void {
    if (why !== undefined) return;
    why = reason;
    heartbeat.stop();
    stopListening();
    const error = new ReceiverError('PROTOCOL', `the session has ended: ${quote(reason)}`, { reason });
    builds.end(error);
    downloads.end(error);
    cancelCut = clock.after(closeGraceMs, () => channel.destroy());
    if (word === undefined) channel.close();
    else channel.terminate(word);
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
        cancelCut();
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

/** What a receiver says about itself in its answer to any intent. */
export interface ReceiverInfo {
  /** Lower-case hex SHA-256 of its key; proved by the handshake, unlike the rest. */
  readonly pin: string;
  /** Its installed ESPHome, '' when it does not say. */
  readonly esphomeVersion: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** It can build with the very version that a job names. */
  readonly autoProvisionSupported: boolean;
  /** Pairing needs its pairing key. Only a preview tells. */
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
