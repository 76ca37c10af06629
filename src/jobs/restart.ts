/**
 * What becomes of jobs whose receiver has ended, by a crash or in good order: the same, so that a restart costs
 * nobody a place in the queue.
 *
 * A job that waits goes on waiting. One that ran is queued again, but once: a build that brings its receiver down
 * would otherwise do so for ever. What a newer job has replaced never comes back, or it would build an old
 * configuration over a new one and speak under an id that means another job by now.
 */
import { startOfProgress } from '../esphome/progress.js';
import { isTerminal, type JobRecord } from './job.js';

/**
 * The records that were left, in the order of `left`, as they are to go on at time `now` (milliseconds). `known` are
 * the jobs besides them, which do not change. Both hold no id twice.
 */
export function afterRestart(
  left: readonly JobRecord[],
  known: readonly JobRecord[],
  now: number,
): readonly JobRecord[] {
  const [works, names] = [new Set<string>(), new Set<string>()];
  const results = new Map<string, JobRecord>();
  const leftIds = new Set(left.map(({ id }) => id));
  for (const record of [...known, ...left].toSorted((a, b) => b.createdAt - a.createdAt)) {
    const work = `${record.dashboardId} ${record.device} ${record.target}`;
    const name = `${record.dashboardId} ${record.peerJobId}`;
    const isReplaced = works.has(work) || names.has(name);
    const result = leftIds.has(record.id) ? resume(record, isReplaced, now) : record;
    results.set(record.id, result);
    // Only a whole bundle replaces the one before it, and an interrupted job leaves its id to the next.
    if (result.bundle !== null) works.add(work);
    if (!result.interrupted) names.add(name);
  }
  return left.map(({ id }) => results.get(id) as JobRecord);
}

/** One job as it goes on when its receiver has ended: unchanged, queued again, or failed. */
export function afterStop(record: JobRecord, now: number): JobRecord {
  if (isTerminal(record)) return record;
  if (record.state === 'receiving' || record.bundle === null) {
    return {
      ...failed(record, 'the build server was restarted and does not have the bundle of this job', now),
      interrupted: true,
    };
  }
  if (record.state !== 'running') return record;
  if (record.requeued) return failed(record, 'the build server has ended twice during this job', now);
  return {
    ...record,
    ...{ state: 'queued', requeued: true, startedAt: null, esphomeVersion: null, attempt: 1 },
    progress: startOfProgress(record.progress.expected),
  };
}

function resume(record: JobRecord, isReplaced: boolean, now: number): JobRecord {
  if (!isReplaced || isTerminal(record)) return afterStop(record, now);
  return { ...record, state: 'cancelled', errorMessage: 'replaced by a newer job', finishedAt: now };
}

function failed(record: JobRecord, errorMessage: string, finishedAt: number): JobRecord {
  return { ...record, state: 'failed', failureReason: 'internal', errorMessage, finishedAt };
}
