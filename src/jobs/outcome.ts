/**
 * What a thrown error means for a job: a state, a reason to branch on, and a sentence for the peer's user.
 *
 * Only messages of our own errors travel, since those hold no host path; everything else becomes one general
 * sentence here and goes to the log in full.
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

/** A cancelled job is cancelled, whatever else went wrong on the way out. */
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
    // What is wrong with the build itself has become another code by now; what is left are the server's own files.
    const message = `the build server cannot use its own directories: ${error.message}`;
    return { to: 'failed', reason: 'internal', message };
  }
  log.error({ jobId: id, err: error }, 'job failed: internal error');
  return { to: 'failed', reason: 'internal', message: 'the build server failed; its own log says why' };
}

/** Also when errors of ours say what the full disk has prevented, and what that has led to. */
function isFullDisk(error: unknown): boolean {
  for (let cause = error; ; cause = cause.cause) {
    if (!isReceiverError(cause)) return fullDisk.has(systemCode(cause) ?? '');
  }
}

/** The outcome of a job whose signal was aborted; the reason's message is for people. */
export function cancelledBy(signal: AbortSignal): Outcome {
  return { to: 'cancelled', message: (signal.reason as ReceiverError).message };
}
