/**
 * The session with one approved peer: the effect of each frame, and one way to end for either side and any reason (Device
 * Builder 1.26). Frames are handled in order and never awaited, so a ping is answered while a bundle is unpacked and
 * firmware is sent. Uploads, downloads and timers end with the session; jobs continue, because they belong to the peer.
 */
import { quote } from '../errors.js';
import { createRefusalLog } from '../log.js';
import type { TerminateReason, ResetReason } from '../protocol/constants.js';
import type { Parsed, ToReceiver } from '../protocol/frames.js';
import { closeGraceMs, startHeartbeat } from '../protocol/heartbeat.js';
import { createDownloadHandler } from './download.js';
import { createOutbox, type Outbox } from './outbox.js';
import type { PeerSessionDeps } from './ports.js';
import { createUploadHandler } from './upload.js';

/** The limit of unread answers before the peer is disconnected. Frames without a request wait in the outbox instead. */
const maxUnreadBytes = 1_048_576;

export type PeerSession = ReturnType<typeof openSession>;

type Frame = Exclude<Parsed<ToReceiver>, { kind: 'malformed' }>;

/** Opens the session on a channel that has answered `ok`. */
export function openSession(parts: PeerSessionDeps) {
  const { channel, clock, dashboardId, lane, log } = parts;
  const outbox = createOutbox(channel);
  const endMalformed = (): void => end('malformed_frame');
  log.info({ dashboardId, lane, label: parts.peerLabel, address: channel.remoteAddress }, 'session opened');
  const upload = createUploadHandler({ ...parts, outbox, endMalformed });
  const download = createDownloadHandler(parts);
  const reset = createResetHandler(parts, outbox, () => upload.isBusy() || download.isBusy());
  const heartbeat = startHeartbeat({
    clock,
    ping: (nonce) => channel.send({ type: 'ping', nonce }),
    dead: () => end('heartbeat_timeout'),
    isPaused: upload.isPaused,
  });
  const probes = new Set<(isAnswered: boolean) => void>();
  let ending: Promise<unknown> | undefined;
  let cancelCut = (): void => {};
  const openedAt = clock.steady();

  /**
   * Ends the session: with a final `terminate` frame of that reason, `closed` in good order without a frame, or `cut` at
   * once. Only the first call has an effect. `reason` is for the log.
   */
  function end(how: TerminateReason | 'closed' | 'cut', reason: string = how): void {
    if (ending) return;
    const seconds = Math.round((clock.steady() - openedAt) / 1_000);
    log.info({ dashboardId, address: channel.remoteAddress, reason, seconds }, 'session closed');
    heartbeat.stop();
    for (const finish of probes) finish(false);
    outbox.end();
    ending = Promise.all([upload.end(), download.end(), reset.end()]);
    if (how === 'cut') return channel.destroy();
    cancelCut = clock.after(closeGraceMs, () => channel.destroy());
    if (how === 'closed') channel.close();
    else channel.terminate(how);
  }

  /** Resolves when the connection has closed and nothing of the session is running. */
  const ended = new Promise<void>((resolve) => {
    channel.open({
      anyDecryptedFrame() {
        heartbeat.alive();
        for (const finish of probes) finish(true);
      },
      frame(parsed) {
        try {
          if (channel.bufferedBytes > maxUnreadBytes) return end('cut', 'the peer reads too slowly');
          handle(parsed);
        } catch (error) {
          log.error({ err: error, dashboardId }, 'frame handling failed');
          end('closed', 'internal error');
        }
      },
      malformed: endMalformed,
      closed() {
        end('cut', 'connection lost');
        cancelCut();
        void ending?.then(() => resolve());
      },
    });
  });

  function handle(parsed: Frame): void {
    switch (parsed.kind) {
      case 'frame':
        return handleFrame(parsed.frame);
      case 'invalid':
        return handleInvalid(parsed);
      case 'unknown':
        return log.debug({ type: quote(parsed.type), dashboardId }, 'frame ignored: unknown type');
    }
  }

  function handleFrame(frame: ToReceiver): void {
    switch (frame.type) {
      case 'ping':
        channel.send({ type: 'pong', nonce: frame.nonce });
        return;
      case 'pong':
        return;
      case 'terminate':
        return end('closed', `terminated by the peer: ${quote(frame.reason)}`);
      case 'submit_job':
        return upload.header(frame);
      case 'submit_job_chunk':
        return upload.chunk(frame);
      case 'cancel_job':
        return upload.cancel(frame.job_id);
      case 'download_artifacts':
        return download.start(frame.job_id);
      case 'reset_build_env':
        return reset.start(frame.job_id);
    }
  }

  function handleInvalid({ type, jobId }: Extract<Frame, { kind: 'invalid' }>): void {
    switch (type) {
      case 'submit_job':
      case 'submit_job_chunk':
        return upload.invalid(type, jobId);
      case 'download_artifacts':
        return endMalformed();
      case 'reset_build_env':
        reset.refuse(jobId, 'invalid_frame');
        return endMalformed();
      default:
        return log.debug({ type, dashboardId }, 'frame ignored: malformed');
    }
  }

  /** Pings the peer. False when no frame arrives in that time. */
  function isAnswering(withinMs: number): Promise<boolean> {
    // While the channel is paused, no answer can arrive.
    if (upload.isPaused()) return Promise.resolve(true);
    if (ending || !channel.send({ type: 'ping', nonce: 0 })) return Promise.resolve(false);
    return new Promise((resolve) => {
      const finish = (isAnswered: boolean): void => {
        probes.delete(finish);
        cancel();
        resolve(isAnswered);
      };
      const cancel = clock.after(withinMs, () => finish(false));
      probes.add(finish);
    });
  }

  return { dashboardId, lane, remoteAddress: channel.remoteAddress, outbox, end, isAnswering, ended };
}

/**
 * Handles `reset_build_env`, a request to remove builds (Device Builder 1.26). Device Builder empties the caches of all
 * dashboards, which can cost every other one its next hour; here the host decides what is removed, by default the peer's
 * own builds. The progress is reported as that of a job, under the id of the frame.
 */
function createResetHandler(parts: PeerSessionDeps, outbox: Outbox, isTransferring: () => boolean) {
  const { dashboardId, channel, resetBuilds, clock, log } = parts;
  const warnRefused = createRefusalLog(log, clock);
  let running: Promise<void> | undefined;

  function refuse(jobId: string, reason: ResetReason): void {
    warnRefused({ dashboardId, reason }, 'build reset refused');
    channel.send({ type: 'reset_build_env_ack', job_id: jobId, accepted: false, reason });
  }

  async function follow(jobId: string, reset: Promise<void>): Promise<void> {
    const state = { type: 'job_state_changed', job_id: jobId } as const;
    outbox.state({ ...state, status: 'running', error_message: '' });
    try {
      await reset;
      outbox.state({ ...state, status: 'completed', error_message: '' });
    } catch (error) {
      log.error({ err: error, dashboardId, jobId: quote(jobId) }, 'build reset failed');
      const message = 'some builds could not be removed; see the log of the build server';
      outbox.state({ ...state, status: 'failed', error_message: message });
    }
  }

  return {
    start(jobId: string): void {
      if (resetBuilds === undefined) return refuse(jobId, 'not_ready');
      if (running || isTransferring()) return refuse(jobId, 'busy');
      const reset = resetBuilds(dashboardId);
      if (reset === null) return refuse(jobId, 'busy');
      channel.send({ type: 'reset_build_env_ack', job_id: jobId, accepted: true });
      running = follow(jobId, reset).finally(() => (running = undefined));
    },
    refuse,
    end: () => running,
  };
}
