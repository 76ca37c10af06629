/**
 * From the jobs to the sessions: each event of a job goes to the peer that ordered it, if it is there, under the id
 * that the peer gave. What happens while the peer is away is not repeated; it asks for its job again when it is back.
 */
import type { JobEvent } from '../jobs/events.js';
import { isTerminal, type JobRecord } from '../jobs/job.js';
import type { HidePlaces } from './hide-places.js';
import { queueStatusFrame, stateFrame } from './job-frames.js';
import type { LinkJobs } from './ports.js';
import type { Sessions } from './sessions.js';

export interface FanOut {
  /** Nothing more is sent about that job, whose peer's id now means another. It must not have ended yet. */
  mute(jobId: string): void;
  stop(): void;
}

export function startFanOut(jobs: LinkJobs, sessions: Sessions, hidePlaces: HidePlaces): FanOut {
  const muted = new Set<string>();

  function state(job: JobRecord): void {
    const frame = stateFrame(job);
    if (frame && !muted.has(job.id)) sessions.get(job.dashboardId)?.outbox.state(frame);
    if (isTerminal(job)) muted.delete(job.id);
  }

  const stop = jobs.subscribe((event: JobEvent) => {
    if (event.type === 'state') state(event.job);
    if (event.type === 'output' && !muted.has(event.job.id)) {
      const session = sessions.get(event.job.dashboardId);
      session?.outbox.output(event.job.peerJobId, hidePlaces(event.line, event.job));
    }
    if (event.type === 'queue') {
      const frame = queueStatusFrame(event.status);
      for (const session of sessions.list()) session.outbox.queueStatus(frame);
    }
  });
  return { mute: (jobId) => void muted.add(jobId), stop };
}
