/**
 * The long session with one approved peer: what each of its frames does, and one way to end it from whichever side
 * and for whatever reason (Device Builder 1.26).
 *
 * Frames are handled in order and never waited for, so a ping is answered while a bundle is unpacked and firmware
 * is sent. When the session ends, its uploads, downloads and timers end with it; jobs do not, they belong to the
 * peer and not to its connection.
 */
import type { Clock } from '../async/clock.js';
import { quote } from '../errors.js';
import { createRefusalLog, type Log } from '../log.js';
import type { BundleLimits } from '../options/core-options.js';
import type { DashboardId } from '../paths/index.js';
import type { ReceiverChannel } from '../protocol/channel.js';
import type { TerminateReason, ResetReason } from '../protocol/constants.js';
import type { Parsed, ToReceiver } from '../protocol/frames.js';
import { closeGraceMs, startHeartbeat } from '../protocol/heartbeat.js';
import type { Uploads } from './connection-limits.js';
import { createDownloadHandler } from './download.js';
import { createOutbox, type Outbox } from './outbox.js';
import type { IsPlaceSafe, SessionJobs, NoRoomFor, OpenIntake, ResetBuilds } from './ports.js';
import { createUploadHandler } from './upload.js';

/** Unread answers at which a peer that only asks is cut off. All that we send by ourselves waits long before. */
const maxUnreadBytes = 1_048_576;

export interface PeerSession {
  readonly dashboardId: DashboardId;
  readonly remoteAddress: string;
  /** The frames about this peer's jobs. */
  readonly outbox: Outbox;
  /**
   * Ends the session: with a `terminate` of that reason as the last frame, `closed` without a frame and in good
   * order, or `cut` at once. Only the first call counts. `reason` is for the log.
   */
  end(how: TerminateReason | 'closed' | 'cut', reason?: string): void;
  /** Asks the other side for a sign of life. False when none comes in that time. */
  isAnswering(withinMs: number): Promise<boolean>;
  /** Resolves when the connection has ended and nothing of the session runs any more. */
  readonly ended: Promise<void>;
}

export interface PeerSessionDeps {
  readonly dashboardId: DashboardId;
  /** For people: whose jobs these are. */
  readonly peerLabel: string;
  readonly channel: ReceiverChannel;
  readonly jobs: SessionJobs;
  readonly openIntake: OpenIntake;
  readonly bundleLimits: Pick<BundleLimits, 'packedBytes'>;
  readonly isPlaceSafe: IsPlaceSafe;
  readonly noRoomFor?: NoRoomFor | undefined;
  readonly resetBuilds?: ResetBuilds | undefined;
  readonly uploads: Uploads;
  /** From now on nothing is sent about that job. */
  readonly mute: (jobId: string) => void;
  readonly clock: Clock;
  readonly log: Log;
}

type Frame = Exclude<Parsed<ToReceiver>, { kind: 'malformed' }>;

/** Opens the session on a channel that has answered `ok`. */
export function openSession(parts: PeerSessionDeps): PeerSession {
  const { channel, clock, dashboardId, log } = parts;
  const outbox = createOutbox(channel);
  const breach = (): void => end('malformed_frame');
  log.info({ dashboardId, label: parts.peerLabel, address: channel.remoteAddress }, 'session opened');
  const receiving = createUploadHandler({ ...parts, outbox, breach });
  const delivering = createDownloadHandler(parts);
  const resetting = createResetHandler({
    ...{ ...parts, outbox },
    isBusy: () => receiving.isBusy() || delivering.isBusy(),
  });
  const heartbeat = startHeartbeat({
    clock,
    ping: (nonce) => channel.send({ type: 'ping', nonce }),
    dead: () => end('heartbeat_timeout'),
    isPaused: receiving.isPaused,
  });
  const asking = new Set<(isAnswered: boolean) => void>();
  let work: Promise<unknown> | undefined;
  let cancelCut = (): void => {};
  const openedAt = clock.steady();

  function end(how: TerminateReason | 'closed' | 'cut', reason: string = how): void {
    if (work) return;
    const seconds = Math.round((clock.steady() - openedAt) / 1_000);
    log.info({ dashboardId, address: channel.remoteAddress, reason, seconds }, 'session closed');
    heartbeat.stop();
    for (const answer of asking) answer(false);
    outbox.end();
    work = Promise.all([receiving.end(), delivering.end(), resetting.end()]);
    if (how === 'cut') return channel.destroy();
    cancelCut = clock.after(closeGraceMs, () => channel.destroy());
    if (how === 'closed') channel.close();
    else channel.terminate(how);
  }

  const ended = new Promise<void>((resolve) => {
    channel.open({
      anyDecryptedFrame() {
        heartbeat.alive();
        for (const answer of asking) answer(true);
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
      malformed: breach,
      closed() {
        end('cut', 'connection lost');
        cancelCut();
        void work?.then(() => resolve());
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
        return receiving.header(frame);
      case 'submit_job_chunk':
        return receiving.chunk(frame);
      case 'cancel_job':
        return receiving.cancel(frame.job_id);
      case 'download_artifacts':
        return delivering.start(frame.job_id);
      case 'reset_build_env':
        return resetting.ask(frame.job_id);
    }
  }

  function handleInvalid({ type, jobId }: Extract<Frame, { kind: 'invalid' }>): void {
    switch (type) {
      case 'submit_job':
      case 'submit_job_chunk':
        return receiving.invalid(type, jobId);
      case 'download_artifacts':
        return breach();
      case 'reset_build_env':
        channel.send({
          type: 'reset_build_env_ack',
          job_id: jobId,
          accepted: false,
          reason: 'invalid_frame',
        });
        return breach();
      default:
        return log.debug({ type, dashboardId }, 'frame ignored: malformed');
    }
  }

  function isAnswering(withinMs: number): Promise<boolean> {
    // Who is not being read cannot answer.
    if (receiving.isPaused()) return Promise.resolve(true);
    if (work || !channel.send({ type: 'ping', nonce: 0 })) return Promise.resolve(false);
    return new Promise((resolve) => {
      const answer = (isAnswered: boolean): void => {
        asking.delete(answer);
        cancel();
        resolve(isAnswered);
      };
      const cancel = clock.after(withinMs, () => answer(false));
      asking.add(answer);
    });
  }

  return { dashboardId, remoteAddress: channel.remoteAddress, outbox, end, isAnswering, ended };
}

/**
 * A peer's wish to have its builds begin from nothing (Device Builder 1.26, `reset_build_env`). The original empties the
 * caches of all, so that one dashboard can cost every other its next hour; here it concerns what the host allows, by
 * default the peer's own builds.
 *
 * What comes of it is told as of a job, under the id that the frame brought.
 */
export interface ResetHandlerDeps {
  readonly dashboardId: DashboardId;
  readonly channel: Pick<ReceiverChannel, 'send'>;
  readonly outbox: Pick<Outbox, 'state'>;
  /** Undefined: never. */
  readonly resetBuilds?: ResetBuilds | undefined;
  /** Whether a bundle or a result of this session is on its way. */
  readonly isBusy: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

export interface ResetHandler {
  /** Answers a `reset_build_env`. */
  ask(jobId: string): void;
  /** Resolves when nothing of it runs. */
  end(): Promise<void>;
}

function createResetHandler(parts: ResetHandlerDeps): ResetHandler {
  const { dashboardId, channel, outbox, resetBuilds, isBusy, clock, log } = parts;
  const warnRefused = createRefusalLog(log, clock);
  let running: Promise<void> | undefined;

  function answer(jobId: string, reason?: ResetReason): void {
    const refusal = reason === undefined ? { accepted: true } : { accepted: false, reason };
    if (reason !== undefined) warnRefused({ dashboardId, reason }, 'build reset refused');
    channel.send({ type: 'reset_build_env_ack', job_id: jobId, ...refusal });
  }

  async function follow(jobId: string, reset: Promise<void>): Promise<void> {
    const state = { type: 'job_state_changed', job_id: jobId } as const;
    outbox.state({ ...state, status: 'running', error_message: '' });
    try {
      await reset;
      outbox.state({ ...state, status: 'completed', error_message: '' });
    } catch (error) {
      log.error({ err: error, dashboardId, jobId: quote(jobId) }, 'build reset failed');
      const message = 'not everything could be removed; the log of the build server says what';
      outbox.state({ ...state, status: 'failed', error_message: message });
    }
  }

  return {
    ask(jobId) {
      if (resetBuilds === undefined) return answer(jobId, 'not_ready');
      if (running || isBusy()) return answer(jobId, 'busy');
      const reset = resetBuilds(dashboardId);
      if (reset === null) return answer(jobId, 'busy');
      answer(jobId);
      running = follow(jobId, reset).finally(() => (running = undefined));
    },
    async end() {
      await running;
    },
  };
}
