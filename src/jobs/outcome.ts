/**
 * Maps a thrown error to a job's outcome: a state, a reason code, and a message for the peer's user.
 *
 * Only messages of receiver errors are sent, since those contain no host path. A fault of the host's disk becomes a
 * sentence that says whom it concerns, any other error one general message; both are logged in full.
 */
import { hostFaultOf, isReceiverError, type ErrorCode, type Facts, type ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { FailureReason, JobRecord, Outcome } from './record.js';

const reasons: Partial<Record<ErrorCode, FailureReason>> = {
  BUNDLE: 'bundle',
  TRAVERSAL: 'bundle',
  ARTIFACTS: 'compile',
  WROTE_ELSEWHERE: 'wrote_elsewhere',
  LOCK_TIMEOUT: 'lock_lost',
  LOCK_LOST: 'lock_lost',
  FENCED: 'lock_lost',
  SPAWN: 'toolchain',
  PROVISION: 'provision',
  RESOURCE: 'resource',
};

/** A cancelled job is cancelled, even if something else failed afterwards. */
export function outcomeOf(
  error: unknown,
  { id, signal }: { readonly id: string; readonly signal: AbortSignal },
  log: Log,
): Outcome {
  if (signal.aborted) return cancelledBy(signal);
  const fault = hostFaultOf(error);
  if (fault !== null || isReceiverError(error)) log.warn({ jobId: id, err: error }, 'job failed');
  if (isReceiverError(error, 'STORAGE') && error.facts['isLost'] === true)
    return { to: 'failed', reason: 'internal', message: error.message, facts: { interrupted: true } };
  if (fault !== null)
    return { to: 'failed', reason: fault.isShortage ? 'resource' : 'internal', message: fault.message };
  const reason = isReceiverError(error) && reasons[error.code];
  if (reason) return { to: 'failed', reason, message: error.message };
  if (isReceiverError(error, 'STORAGE')) {
    // Faults of the build itself have other codes by now; this one concerns the server's own files.
    const message = `the build server cannot use its own directories: ${error.message}`;
    return { to: 'failed', reason: 'internal', message };
  }
  log.error({ jobId: id, err: error }, 'job failed: internal error');
  return { to: 'failed', reason: 'internal', message: 'internal error of the build server; see its log' };
}

/** The outcome of a job whose signal was aborted, with the reason's message. */
export function cancelledBy(signal: AbortSignal): Outcome {
  return { to: 'cancelled', message: (signal.reason as ReceiverError).message };
}

/** The facts in every log line about a job. */
export function namesOf({ id, dashboardId, peerLabel, file, target }: JobRecord): Facts {
  return { jobId: id, dashboardId, label: peerLabel, file, target };
}

/** The facts in the log line about its end. */
export function endFactsOf(record: JobRecord): Facts {
  const { state, failureReason, errorMessage, cached, createdAt, startedAt, finishedAt } = record;
  const endedAt = finishedAt ?? createdAt;
  const durations = {
    waitedMs: (startedAt ?? endedAt) - createdAt,
    ranMs: startedAt === null ? 0 : endedAt - startedAt,
  };
  const why = errorMessage === '' ? {} : { reason: failureReason, message: errorMessage };
  return { ...namesOf(record), state, ...why, cached, ...durations };
}
