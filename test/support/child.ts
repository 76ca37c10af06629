/**
 * Child processes that cannot outlive their test: each gets its own session, its end is registered when it starts,
 * and all its output is kept from the first byte on, so no line can be missed. A guard ends it if the process of the
 * test is ended itself, as by the time limit of a file.
 */
import { spawn } from 'node:child_process';
import { Socket } from 'node:net';

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
  const dismiss = guard(pid);
  void ended.then(dismiss);
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

/** Kills the group when its stdin ends without the line: then the process of the test is gone. */
const guardScript = `
trap '' HUP INT TERM
IFS= read -r line
[ "$line" = ended ] || kill -s KILL -- "-$1" 2>/dev/null`;

/** Watches over a process group. The returned function ends that. */
function guard(pid: number): () => void {
  const watcher = spawn('/bin/sh', ['-c', guardScript, 'sh', String(pid)], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  watcher.on('error', () => {}).unref();
  const { stdin } = watcher;
  stdin.on('error', () => {});
  if (stdin instanceof Socket) stdin.unref();
  return () => void stdin.end('ended\n');
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
