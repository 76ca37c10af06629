/**
 * Runs one command in its own session and detects when the session's last process is gone. Node's `close` event watches
 * pipes, and so does not say whether compilers have ended. With it, a slot or a lock could be released while compilers
 * still write, or a promise could never settle because a grandchild holds the output.
 */
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { stat } from 'node:fs/promises';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ReceiverError, quote } from '../errors.js';
import type { Log } from '../log.js';
import { hasProc, identify } from './identity.js';
import { isExecutable } from './machine.js';
import { markerVariable, type SessionIdentity, awaitEnd, terminateGroup, type StopReport } from './stop.js';
import { goLine, holdScript, shell, watch } from './watchdog.js';

export interface SessionOptions {
  /** Absolute, must exist. */
  readonly cwd: string;
  /** The command's complete environment, to which the session's marker is added. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Gets stdout and stderr as one stream, in order. Must neither throw nor reject. Reading pauses while its promise is
   * pending, so that endless output cannot block this process.
   */
  readonly onOutput: (chunk: Buffer) => void | Promise<void>;
  /**
   * Called when the session exists and before the command starts: the time to record the identity. When it rejects,
   * the command never runs and the error is rethrown.
   */
  readonly beforeStart?: (identity: SessionIdentity) => Promise<void>;
  readonly log: Log;
}

export interface ExitStatus {
  /** Null when a signal ended the command. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface SessionProcess {
  /** The pid is the command's, and the number of its group and its session. */
  readonly identity: SessionIdentity;
  /**
   * How the command itself ended. Resolves after all output is delivered and the processes that the command left
   * behind are stopped. Never rejects.
   */
  readonly exited: Promise<ExitStatus>;
  /**
   * Sends TERM to the group, waits up to `graceMs`, then sends KILL to every process. Takes at most 6 s beyond the
   * grace. Can be called again, for instance to shorten the grace.
   */
  stop(options: { readonly graceMs: number }): Promise<StopReport>;
  /** Waits until no live process of the session is left, however long a survivor takes. */
  settled(): Promise<void>;
}

/** Time for processes that the command leaves running to end, for instance a `tee` with the last lines. */
const stragglerMs = 250;
/** How long the pipe can stay open after the last known process is gone. */
const outputMs = 1_000;
const survivorPauseMs = 1_000;

/** Throws SPAWN when the command cannot be run at all, and whatever `beforeStart` throws. */
export async function spawnSession(
  command: readonly [string, ...string[]],
  { cwd, env, onOutput, beforeStart, log }: SessionOptions,
): Promise<SessionProcess> {
  await assertRunnable(command[0], { cwd, path: env['PATH'] });
  if (!hasProc()) warnOnce(log);
  // Usually loaded since the start (receiver.ts).
  const { execa } = await import('execa');
  const marker = randomUUID();
  const child = heard(command, () =>
    execa(shell, ['-c', holdScript, 'sh', ...command], {
      cwd,
      env: { ...env, [markerVariable]: marker },
      extendEnv: false,
      detached: true,
      buffer: false,
      reject: false,
      encoding: 'buffer',
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'ignore',
    }),
  );
  const { pid } = child;
  if (pid === undefined)
    throw new ReceiverError('SPAWN', 'a program could not be started', { command }, await child);
  const left = new Promise<ExitStatus>((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  const closed = new Promise<void>((resolve) => child.stdout.once('close', resolve));
  child.stdout.on('data', (chunk: Buffer) => {
    const taken = onOutput(chunk);
    if (taken === undefined) return;
    child.stdout.pause();
    void taken.then(() => child.stdout.resume());
  });
  child.stdin.on('error', () => {});

  const giveUp = async (): Promise<void> => {
    child.stdin.destroy();
    await Promise.all([left, closed, child]);
  };
  let identity: SessionIdentity;
  try {
    identity = { ...(identify(pid) ?? { pid, startTime: 0, bootId: '' }), marker };
  } catch (cause) {
    await giveUp();
    throw new ReceiverError('SPAWN', 'a started program cannot be identified', { command }, { cause });
  }
  const [watching, written] = await Promise.allSettled([watch(identity, log), beforeStart?.(identity)]);
  if (watching.status === 'rejected' || written.status === 'rejected') {
    const watchdog = watching.status === 'fulfilled' ? watching.value : undefined;
    await Promise.all([giveUp(), watchdog?.done()]);
    throw [watching, written].find(isRejected)?.reason;
  }
  child.stdin.end(goLine);

  const watched = watching.value;
  let killAt = Infinity;
  let ending: Promise<StopReport> | undefined;
  const end = (graceMs: number): Promise<StopReport> => {
    killAt = Math.min(killAt, performance.now() + graceMs);
    ending ??= finish();
    return ending;
  };
  const finish = async (): Promise<StopReport> => {
    const report = await awaitEnd(identity, () => killAt);
    if (report.survivors === 0) await watched.done();
    await within(outputMs, closed);
    child.stdout.destroy();
    return report;
  };
  const exited = left.then(async (status) => {
    await (ending ?? end(stragglerMs));
    await child;
    return status;
  });

  return {
    identity,
    exited,
    stop({ graceMs }) {
      if (ending === undefined) terminateGroup(identity);
      return end(graceMs);
    },
    async settled() {
      await exited;
      const { survivors } = await end(0);
      if (survivors === 0) return;
      log.error({ pid, survivors }, 'build processes survived SIGKILL, waiting for them');
      while ((await awaitEnd(identity, () => 0)).survivors > 0) await sleep(survivorPauseMs);
      await watched.done();
    },
  };
}

function isRejected(result: PromiseSettledResult<unknown>): result is PromiseRejectedResult {
  return result.status === 'rejected';
}

async function within(ms: number, promise: Promise<void>): Promise<void> {
  const timer = new AbortController();
  await Promise.race([promise, sleep(ms, undefined, { signal: timer.signal }).catch(() => {})]);
  timer.abort();
}

let warned = false;

function warnOnce(log: Log): void {
  if (warned) return;
  warned = true;
  log.warn({}, 'no /proc: builds are ended by process group only, not by session');
}

/** Used when the environment has no PATH. */
const defaultPath = '/usr/local/bin:/usr/bin:/bin';

/** The channel on which Node announces each process that it is about to start. */
const startChannel = 'child_process';

/**
 * Listens for the error of a process that could not be started. With no descriptor free, Node gives such a process no
 * streams: execa fails on them, and the error that follows would end the receiver, because nobody else listens.
 */
function heard<T>(command: readonly string[], start: () => T): T {
  const listen = (message: unknown): void => {
    (message as { readonly process: ChildProcess }).process.on('error', () => {});
  };
  subscribe(startChannel, listen);
  try {
    return start();
  } catch (cause) {
    throw new ReceiverError('SPAWN', 'a program could not be started', { command }, { cause });
  } finally {
    unsubscribe(startChannel, listen);
  }
}

/**
 * Throws SPAWN unless `program` is an executable file, found as a shell would find it, and `cwd` a directory. The shell
 * that holds the command would only exit with 127, which can also be the command's own code.
 */
async function assertRunnable(
  program: string,
  { cwd, path = defaultPath }: { readonly cwd: string; readonly path?: string | undefined },
): Promise<void> {
  if (!(await isDirectory(cwd)))
    throw new ReceiverError('SPAWN', 'the working directory of a program is missing', { program, cwd });
  const folders = program.includes('/') ? [''] : path.split(':');
  // A leading dash would be an option of the shell's exec.
  for (const folder of program.startsWith('-') ? [] : folders) {
    if (await isExecutable(resolvePath(cwd, folder, program))) return;
  }
  const name = program.slice(program.lastIndexOf('/') + 1);
  throw new ReceiverError('SPAWN', `the program ${quote(name)} cannot be run`, { program, cwd, path });
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
