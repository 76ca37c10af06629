/**
 * Decides whether a compile succeeded, and if not, why and what the user can do.
 *
 * It distinguishes a lack of memory or disk space from a bad configuration, because a user who reads "compile error"
 * starts to change a configuration that was never wrong.
 */
import { diskFullMessage } from '../errors.js';
import type { CompileRequest, CompileResult } from './compile.js';

export type CompileFailureReason = 'config' | 'toolchain' | 'compile' | 'resource' | 'provision';

export interface CompileFailure {
  readonly reason: CompileFailureReason;
  /** What happened and what to do, without host paths. */
  readonly message: string;
}

export type CompileLimits = Pick<CompileRequest, 'timeoutMs' | 'silenceTimeoutMs'>;

/** Null for a success, see {@link isSuccess}. Meaningless for a cancelled compile or a lost lease; check those first. */
export function judge(result: CompileResult, limits: CompileLimits): CompileFailure | null {
  if (isSuccess(result)) return null;
  const [reason, message] = failureOf(result, limits);
  return { reason, message };
}

/** Exit code 0, not stopped by the receiver, and no line that contradicts it (Device Builder 1.26). */
export function isSuccess({ exitCode, timedOut, silent, marks }: CompileResult): boolean {
  return exitCode === 0 && !timedOut && !silent && marks.contradiction === null;
}

function failureOf(
  { exitCode, signal, timedOut, silent, marks }: CompileResult,
  { timeoutMs, silenceTimeoutMs = 0 }: CompileLimits,
): readonly [CompileFailureReason, string] {
  const again = "build again, or have the build server's limit raised";
  if (timedOut) return ['resource', `stopped: it took longer than ${showTime(timeoutMs)}; ${again}`];
  if (silent) return ['resource', `stopped: it printed nothing for ${showTime(silenceTimeoutMs)}; ${again}`];
  if (exitCode === 0) {
    const words = `it reported success after "${marks.contradiction}"`;
    return ['toolchain', `ESPHome on the build server is incomplete and must be installed again: ${words}`];
  }
  if (exitCode === 2 && marks.downloadFailed) return ['provision', downloadFailedMessage];
  if (exitCode === 2) return ['config', 'the configuration is invalid; the log says where'];
  if (marks.diskFull) return ['resource', diskFullMessage];
  if (signal === 'SIGKILL' || killedCodes.has(exitCode) || marks.killed) {
    const remedy = 'build again when the build server has less to do, or give it more memory';
    return ['resource', `killed, probably out of memory; ${remedy}`];
  }
  if (marks.outOfMemory)
    return ['resource', 'the build server ran out of memory; give it more, or less to do'];
  if (signal !== null) return ['compile', `ESPHome was ended by ${signal}; build again, and look at the log`];
  if (marks.downloadFailed) return ['provision', downloadFailedMessage];
  if (marks.brokenTools) {
    return ['toolchain', 'the tools of the build server are broken; the log says which must be repaired'];
  }
  return ['compile', `the compile failed (exit code ${exitCode}); the log says why`];
}

/** With the reason `provision` the client of Device Builder 1.26 builds by itself: its own machine may be online. */
const downloadFailedMessage =
  'the build server could not download what the build needs; check its connection and build again';

/** The exit codes by which a shell and Python report that signal 9 ended their child. */
const killedCodes: ReadonlySet<number | null> = new Set([128 + 9, 256 - 9]);

/**
 * Whether the build's files may be damaged, because something was killed while it wrote. A compile that fails or is
 * stopped politely removes its half-written files by itself (ninja, measured with ESPHome 2026.10).
 */
export function leavesDamage(result: CompileResult): boolean {
  const { forced, leaseLost, exitCode, signal, marks, cancelled, timedOut, silent } = result;
  const endedByStranger = signal !== null && !cancelled && !timedOut && !silent;
  return (
    forced || leaseLost || endedByStranger || killedCodes.has(exitCode) || marks.killed || marks.diskFull
  );
}

function showTime(ms: number): string {
  if (ms >= 120_000) return `${Math.round(ms / 60_000)} minutes`;
  const seconds = Math.round(ms / 1000);
  return seconds === 1 ? '1 second' : `${seconds} seconds`;
}
