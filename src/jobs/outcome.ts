/**
 * Maps a thrown error to a job's outcome: a state, a reason code, and a message for the peer's user.
 *
 * Only messages of receiver errors are sent, since those contain no host path; any other error becomes one general
 * message and is logged in full.
 */
import { diskFullMessage } from '../compile/verdict.js';
import { isReceiverError, systemCode, type ErrorCode, type ReceiverError } from '../errors.js';
import type { Log } from '../log.js';
import type { FailureReason, Outcome } from './record.js';

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

const fullDisk = new Set(['ENOSPC', 'EDQUOT']);

/** A cancelled job is cancelled, even if something else failed afterwards. */
export function outcomeOf(
  error: unknown,
  { id, signal }: { readonly id: string; readonly signal: AbortSignal },
  log: Log,
): Outcome {
  if (signal.aborted) return cancelledBy(signal);
  if (isReceiverError(error)) log.warn({ jobId: id, err: error }, 'job failed');
  if (isFullDisk(error)) return { to: 'failed', reason: 'resource', message: diskFullMessage };
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

/** Also finds a full disk as the cause of a receiver error, however deep. */
function isFullDisk(error: unknown): boolean {
  for (let cause = error; ; cause = cause.cause) {
    if (!isReceiverError(cause)) return fullDisk.has(systemCode(cause) ?? '');
  }
}

/** The outcome of a job whose signal was aborted, with the reason's message. */
export function cancelledBy(signal: AbortSignal): Outcome {
  return { to: 'cancelled', message: (signal.reason as ReceiverError).message };
}
