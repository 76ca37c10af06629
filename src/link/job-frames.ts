/** A job's state in the words of the wire (Device Builder 1.26). */
import type { QueueStatus } from '../jobs/events.js';
import type { JobRecord } from '../jobs/job.js';
import type { FrameOf } from './frames.js';

/** The frame for the present state; undefined while the bundle is still being unpacked, for which there is none. */
export function stateFrame(job: JobRecord): FrameOf<'job_state_changed'> | undefined {
  if (job.state === 'receiving') return undefined;
  return {
    type: 'job_state_changed',
    job_id: job.peerJobId,
    status: job.state,
    error_message: job.errorMessage,
    // The only reason that clients know: they then build by themselves.
    ...(job.failureReason === 'provision' && { failure_reason: 'provision' }),
  };
}

export function queueStatusFrame({ idle, running, queue_depth }: QueueStatus): FrameOf<'queue_status'> {
  return { type: 'queue_status', idle, running, queue_depth };
}
