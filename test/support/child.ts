/**
 * Child processes that cannot outlive their test: each gets its own session, its end is registered when it starts,
 * and all its output is kept from the first byte on, so no line can be missed.
 */
import { spawn } from 'node:child_process';

import type { Cleanups } from './temp-dir.js';
import { waitFor } from './wait-for.js';

const stopDeadlineMs = 10_000;

export interface Child {
  readonly pid: number;
  /** Its output so far, both streams in the order of arrival. */
  output(): string;
  /** Waits up to `deadlineMs` until the output matches; if the child ends first, the error has its output. */
  printed(pattern: RegExp, options?: { readonly deadlineMs?: number }): Promise<RegExpExecArray>;
  /** Sends a signal to its whole process group. */
  signal(signal: NodeJS.Signals): void;
  /** Sends SIGTERM to its group and waits up to `deadlineMs` (10 s by default) for its end. */
  stop(options?: { readonly deadlineMs?: number }): Promise<number | NodeJS.Signals>;
  /** Its exit code or the name of the signal, once it has ended and its output is complete. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

/** Starts a program, which is killed with its process group when the test ends. */
export async function startChild(
  t: Cleanups,
  command: readonly [string, ...string[]],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<Child> {
  const [program, ...args] = command;
  const child = spawn(program, args, { ...options, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text));
  }
  let hasEnded = false;
  const ended = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('close', (code, signal) => {
      hasEnded = true;
      resolve(code ?? signal ?? 1);
    });
  });
  await new Promise((resolve, reject) => child.once('spawn', () => resolve(null)).once('error', reject));
  const pid = child.pid as number;
  const signal = (name: NodeJS.Signals): void => signalGroup(pid, name);
  t.after(async () => {
    signal('SIGKILL');
    child.stdout.destroy();
    child.stderr.destroy();
    await ended;
  });
  return {
    pid,
    output: () => output,
    printed: async (pattern, limit) => {
      await waitFor(() => hasEnded || pattern.test(output), {
        what: `${pattern} from ${program}`,
        ...limit,
      });
      const match = pattern.exec(output);
      if (!match) throw new Error(`${program} ended without printing ${pattern}. It printed:\n${output}`);
      return match;
    },
    stop: async ({ deadlineMs = stopDeadlineMs } = {}) => {
      signal('SIGTERM');
      await waitFor(() => hasEnded, { what: `the end of ${program}`, deadlineMs });
      return ended;
    },
    signal,
    ended,
  };
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
