/**
 * A peer's wish to have its builds begin from nothing (Device Builder 1.26, `reset_build_env`). The original empties the
 * caches of all, so that one dashboard can cost every other its next hour; here it concerns what the host allows, by
 * default the peer's own builds.
 *
 * What comes of it is told as of a job, under the id that the frame brought.
 */
import { quote } from '../errors.js';
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { ReceiverChannel } from './channel.js';
import type { ResetReason } from './names.js';
import type { Outbox } from './outbox.js';
import type { ResetBuilds } from './ports.js';

export interface ResettingParts {
  readonly dashboardId: DashboardId;
  readonly channel: Pick<ReceiverChannel, 'send'>;
  readonly outbox: Pick<Outbox, 'state'>;
  /** Undefined: never. */
  readonly resetBuilds?: ResetBuilds | undefined;
  /** Whether a bundle or a result of this session is on its way. */
  readonly isBusy: () => boolean;
  readonly log: Log;
}

export interface Resetting {
  /** Answers a `reset_build_env`. */
  ask(jobId: string): void;
  /** Resolves when nothing of it runs. */
  end(): Promise<void>;
}

export function createResetting(parts: ResettingParts): Resetting {
  const { dashboardId, channel, outbox, resetBuilds, isBusy, log } = parts;
  let running: Promise<void> | undefined;

  function answer(jobId: string, reason?: ResetReason): void {
    const refusal = reason === undefined ? { accepted: true } : { accepted: false, reason };
    channel.send({ type: 'reset_build_env_ack', job_id: jobId, ...refusal });
  }

  async function follow(jobId: string, reset: Promise<void>): Promise<void> {
    const state = { type: 'job_state_changed', job_id: jobId } as const;
    outbox.state({ ...state, status: 'running', error_message: '' });
    try {
      await reset;
      outbox.state({ ...state, status: 'completed', error_message: '' });
    } catch (error) {
      log.error({ error, dashboardId, jobId: quote(jobId) }, 'the builds of a peer could not be reset');
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
