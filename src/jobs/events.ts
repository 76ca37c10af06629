/**
 * Who hears of jobs. A listener that throws is logged and harms neither the job nor the other listeners.
 */
import type { Log } from '../log.js';
import type { JobRecord } from './record.js';

/** Of all builds in the queue, the host's own among them. */
export interface QueueStatus {
  readonly idle: boolean;
  readonly running: boolean;
  /** How many wait, without those that run. */
  readonly queueDepth: number;
}

export type JobEvent =
  /** The job has entered `job.state`; for a terminal state once, after its slot is free and nothing of it runs. */
  | { readonly type: 'state'; readonly job: JobRecord }
  /** It begins to wait for something other than its turn, or waits no more. Not told when its state changes, too. */
  | { readonly type: 'waiting'; readonly job: JobRecord }
  /** Phase or percentage has changed. */
  | { readonly type: 'progress'; readonly job: JobRecord }
  /** One line with its terminator, as the build printed it. Never after the terminal state. */
  | { readonly type: 'output'; readonly job: JobRecord; readonly line: string }
  /** Its result was sent to the end. */
  | { readonly type: 'fetched'; readonly job: JobRecord }
  /** After every change of state. */
  | { readonly type: 'queue'; readonly status: QueueStatus };

export type JobListener = (event: JobEvent) => void;

export interface JobEvents {
  /** Returns how to let go. */
  add(listener: JobListener): () => void;
  tell(event: JobEvent): void;
}

export function createJobEvents(log: Log): JobEvents {
  const listeners = new Set<{ readonly listener: JobListener }>();
  return {
    add(listener) {
      const entry = { listener };
      listeners.add(entry);
      return () => void listeners.delete(entry);
    },
    tell(event) {
      for (const { listener } of [...listeners]) {
        try {
          listener(event);
        } catch (error) {
          log.error({ err: error, type: event.type }, 'event listener threw');
        }
      }
    },
  };
}
