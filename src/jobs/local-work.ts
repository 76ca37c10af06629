/**
 * The host's own builds in the peers' queue, so that together they never exceed the slots. The receiver neither starts
 * nor stops them: it lends a slot and shows who holds it. Also reports the length and order of the shared queue.
 */
import { randomUUID } from 'node:crypto';

import type { Clock } from '../async/clock.js';
import { ReceiverError } from '../errors.js';
import { hostPeer, type JobQueue, type Slot } from './queue.js';
import type { JobRecord } from './record.js';
import type { JobRegistry } from './registry.js';
import { type WaitReason, thisHost, turnsOf, type Owner } from './waiting.js';

export interface LocalJob {
  readonly id: string;
  readonly configuration: string;
  readonly state: 'queued' | 'running';
  /** Milliseconds since 1970, like `startedAt`. */
  readonly createdAt: number;
  readonly startedAt: number | null;
  /** Why it is queued; null while it runs. */
  readonly waiting: WaitReason | null;
}

/** Calls `onChange` after every change of its list. */
export function createLocalWork(queue: JobQueue, clock: Clock, onChange: () => void) {
  const jobs = new Map<string, LocalJob>();
  const closing = new AbortController();

  function change(id: string, facts: Partial<LocalJob>): void {
    const job = jobs.get(id);
    if (job === undefined) return;
    jobs.set(id, { ...job, ...facts });
    onChange();
  }

  function remove(id: string): void {
    if (jobs.delete(id)) onChange();
  }

  return {
    /**
     * Waits for a slot for the host's own build, in the same queue as the peers' jobs. The caller must release the slot
     * once nothing of the build runs, and must acquire it before any lease: a peer's job that has a slot can be waiting
     * for that lease. Rejects with the signal's reason, `RESOURCE` when the disk is nearly full, `CANCELLED` when the
     * server stops meanwhile; `STATE` after `close()`.
     */
    async enqueue(
      configuration: string,
      { signal }: { readonly signal?: AbortSignal | undefined } = {},
    ): Promise<Slot> {
      if (closing.signal.aborted) throw new ReceiverError('STATE', 'the build server is stopping');
      signal?.throwIfAborted();
      const id = randomUUID();
      const facts = { state: 'queued', createdAt: clock.wall(), startedAt: null, waiting: null } as const;
      jobs.set(id, { id, configuration, ...facts });
      onChange();
      try {
        const slot = await queue.enter(id, {
          peer: hostPeer,
          target: 'compile',
          signal: signal ? AbortSignal.any([signal, closing.signal]) : closing.signal,
          onShort: (waiting) => change(id, { waiting }),
        });
        change(id, { state: 'running', startedAt: clock.wall(), waiting: null });
        return {
          release() {
            slot.release();
            remove(id);
          },
        };
      } catch (error) {
        remove(id);
        throw error;
      }
    },
    /** Oldest first. `waiting` is null for those that only wait for a slot. */
    list: (): readonly LocalJob[] => [...jobs.values()],
    /** Rejects the builds that wait; held slots stay held. */
    close: (): void => closing.abort(new ReceiverError('CANCELLED', 'the build server is stopping')),
  };
}

/** Covers all builds in the queue, including the host's own. */
export interface QueueStatus {
  readonly idle: boolean;
  readonly running: boolean;
  /** The number of waiting builds, without the running ones. */
  readonly queueDepth: number;
  readonly freeSlots: number;
}

export function createQueueSummary(
  registry: Pick<JobRegistry, 'get' | 'live'>,
  local: Pick<ReturnType<typeof createLocalWork>, 'list'>,
  queue: Pick<JobQueue, 'status'>,
  slots: number,
) {
  function ownerOf(id: string): Owner {
    const record = registry.get(id)?.record;
    return record ? { dashboardId: record.dashboardId, label: record.peerLabel } : thisHost;
  }

  return {
    status(): QueueStatus {
      const jobs = [...registry.live().map(({ record }) => record), ...local.list()];
      const running = jobs.some(({ state }) => state === 'running');
      const queueDepth = jobs.filter(({ state }) => state === 'queued').length;
      const freeSlots = Math.max(0, slots - queue.status().running.length);
      return { idle: !running && queueDepth === 0, running, queueDepth, freeSlots };
    },
    /** Adds to each job that only waits for a slot who comes before it. */
    withTurns<T extends JobRecord | LocalJob>(jobs: readonly T[]): T[] {
      const turns = turnsOf(queue.status(), ownerOf);
      return jobs.map((job) => {
        const turn = job.state === 'queued' && job.waiting === null ? turns.get(job.id) : undefined;
        return turn ? { ...job, waiting: turn } : job;
      });
    },
  };
}
