/**
 * Whether a compile succeeded, and if not, whose fault it is in words for a person.
 *
 * Out of memory and out of disk are told apart from a bad configuration, because a user who is told "compile
 * error" starts to change a configuration that was never wrong.
 */
import type { CompileResult } from './compile.js';

export type CompileFailureReason = 'config' | 'toolchain' | 'compile' | 'resource';

export interface CompileFailure {
  readonly reason: CompileFailureReason;
  /** One sentence without host paths. */
  readonly message: string;
}

/**
 * Null for a success: exit code 0, not ended by us, and no line that contradicts it (Device Builder 1.26). For a
 * result that was cancelled or lost its lease the answer means nothing; ask for those first.
 */
export function judge(result: CompileResult, timeoutMs: number): CompileFailure | null {
  const { exitCode, signal, timedOut, marks } = result;
  if (timedOut) {
    return { reason: 'resource', message: `stopped: it took longer than ${showTime(timeoutMs)}` };
  }
  if (exitCode === 0) {
    if (marks.contradiction === null) return null;
    const message = `ESPHome's installation is incomplete: it reported success after "${marks.contradiction}"`;
    return { reason: 'toolchain', message };
  }
  if (exitCode === 2)
    return { reason: 'config', message: 'the configuration is invalid; the log says where' };
  if (marks.diskFull) return { reason: 'resource', message: 'the disk of the build server is full' };
  if (signal === 'SIGKILL' || marks.killed) {
    return { reason: 'resource', message: 'killed, probably out of memory' };
  }
  if (signal !== null) return { reason: 'compile', message: `ESPHome was ended by ${signal}` };
  if (marks.brokenTools) {
    return { reason: 'toolchain', message: 'the build server has broken tools; the log says how' };
  }
  if (marks.downloadFailed) {
    return { reason: 'toolchain', message: 'the build server could not download what the build needs' };
  }
  return { reason: 'compile', message: `the compile failed (exit code ${exitCode}); the log says why` };
}

/**
 * Whether what the build has written may be damaged: something was killed in the middle of it. A compile that
 * fails or is stopped politely removes its half-written files by itself (ninja, measured with ESPHome 2026.10).
 */
export function leavesDamage({
  forced,
  leaseLost,
  signal,
  marks,
  cancelled,
  timedOut,
}: CompileResult): boolean {
  const endedByStranger = signal !== null && !cancelled && !timedOut;
  return forced || leaseLost || endedByStranger || marks.killed || marks.diskFull;
}

function showTime(ms: number): string {
  return ms >= 120_000 ? `${Math.round(ms / 60_000)} minutes` : `${Math.round(ms / 1000)} seconds`;
}
