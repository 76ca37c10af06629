/**
 * Queries the version of an installed ESPHome, and validates version strings from peers.
 *
 * A peer's version string becomes an installer's argument and a line in a panel, so it must be PEP 440 to be displayed
 * and compared, and a plain release to be installed. The rules are those of Device Builder 1.26.
 */
import { execFile } from 'node:child_process';

import { ReceiverError, messageOf, quote } from '../errors.js';

const probeTimeoutMs = 15_000;
const maxProbeBytes = 65_536;
const maxVersionLength = 64;

const pep440 =
  /^v?(?:\d+!)?\d+(?:\.\d+)*(?:[-_.]?(?:alpha|beta|preview|pre|rc|a|b|c)[-_.]?\d*)?(?:-\d+|[-_.]?post[-_.]?\d*)?(?:[-_.]?dev[-_.]?\d*)?(?:\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?$/i;
const pinnable = /^\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?$/;

/** True for a string of at most 64 characters in the form of PEP 440. */
export function isVersion(value: unknown): value is string {
  return typeof value === 'string' && value.length <= maxVersionLength && pep440.test(value);
}

/** True for a release or an a/b/rc pre-release, which can be requested from a package index with `==`. */
export function isPinnable(version: string): boolean {
  return version.length <= maxVersionLength && pinnable.test(version);
}

/**
 * Whether a version belongs to a release line or a later one. Pre-releases, dev and local builds count with their line
 * (`2026.10.0b1` belongs to `[2026, 10]`). False for an invalid version.
 */
export function isReleaseAtLeast(version: string, line: readonly number[]): boolean {
  if (!isVersion(version)) return false;
  const release = /^v?(?:\d+!)?(\d+(?:\.\d+)*)/i.exec(version)?.[1] ?? '';
  const parts = release.split('.').map(Number);
  for (const [index, wanted] of line.entries()) {
    const part = parts[index] ?? 0;
    if (part !== wanted) return part > wanted;
  }
  return true;
}

/**
 * Asks a command for its version, as in "2026.10.0". Writes nothing and takes 0.1 s (ESPHome 2026.10). Throws
 * `PROVISION` when it cannot be started, fails, prints something else or takes over 15 s; `CANCELLED` on abort.
 */
export async function probeVersion(
  command: readonly [string, ...string[]],
  options: { readonly env: Readonly<Record<string, string>>; readonly signal?: AbortSignal | undefined },
): Promise<string> {
  const output = await runVersion(command, options.env, options.signal);
  const version = /^Version: (\S{1,64})\s*$/m.exec(output)?.[1];
  if (!isVersion(version)) {
    const message = `ESPHome did not print its version but ${quote(output)}`;
    throw new ReceiverError('PROVISION', message, { command });
  }
  return version;
}

function runVersion(
  [program, ...args]: readonly [string, ...string[]],
  env: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = {
      env,
      timeout: probeTimeoutMs,
      killSignal: 'SIGKILL' as const,
      maxBuffer: maxProbeBytes,
      ...(signal && { signal }),
    };
    execFile(program, [...args, 'version'], options, (cause, stdout, stderr) => {
      if (cause === null) resolve(stdout);
      else if (signal?.aborted)
        reject(new ReceiverError('CANCELLED', 'the version query was cancelled', {}, { cause }));
      else {
        const facts = { program, args, stderr: stderr.slice(-1000), error: messageOf(cause) };
        reject(new ReceiverError('PROVISION', 'the installed ESPHome does not run', facts, { cause }));
      }
    });
  });
}
