/**
 * Runs one command in a session of its own and knows when the last process of it is gone. Node's `close` event
 * proves neither that compilers have ended nor that they have not: it watches pipes. The accidents that this
 * prevents: a slot or a lock that is given on while compilers still write, and a promise that never settles
 * because a grandchild holds the output.
 */
import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ReceiverError, quote } from '../errors.js';
import type { Log } from '../log.js';
import { hasProc, identify } from './identity.js';
import { markerVariable, type SessionIdentity, awaitEnd, terminateGroup, type StopReport } from './stop.js';
import { goLine, holdScript, shell, watch } from './watchdog.js';

export interface SessionOptions {
  /** Absolute, must exist. */
  readonly cwd: string;
  /** The command's whole environment; the marker of the session is added. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Gets stdout and stderr as one stream, in order. Must neither throw nor reject; while what it returns is pending
   * the command is not read, so that one that prints without end cannot take this process with it.
   */
  readonly onOutput: (chunk: Buffer) => void | Promise<void>;
  /**
   * Called when the session exists and the command has not begun: the moment to write the identity down. When
   * it rejects, the command never runs and the error is passed on.
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
   * How the command itself ended. Resolves after all output was delivered and what the command left behind was
   * ended. Never rejects.
   */
  readonly exited: Promise<ExitStatus>;
  /**
   * TERM to the group, up to `graceMs` for all to go, then KILL to every process. Takes at most 6 s beyond the
   * grace. May be called again, also to shorten the grace.
   */
  stop(options: { readonly graceMs: number }): Promise<StopReport>;
  /** Waits until no live process of the session is left, however long a survivor takes. */
  settled(): Promise<void>;
}

/** What the command leaves running has this long to go by itself, for instance a `tee` with the last lines. */
const stragglerMs = 250;
/** How long the pipe may stay open after the last known process has gone. */
const outputMs = 1_000;
const survivorPauseMs = 1_000;

/** Starts a command. Throws SPAWN when it cannot be run at all, and whatever `beforeStart` throws. */
export async function spawnSession(
  command: readonly [string, ...string[]],
  { cwd, env, onOutput, beforeStart, log }: SessionOptions,
): Promise<SessionProcess> {
  await assertRunnable(command[0], { cwd, path: env['PATH'] });
  if (!hasProc()) warnOnce(log);
  const { execa } = await import('execa');
  const marker = randomUUID();
  const child = execa(shell, ['-c', holdScript, 'sh', ...command], {
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
  });
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

  const identity = { ...(identify(pid) ?? { pid, startTime: 0, bootId: '' }), marker };
  const [watching, written] = await Promise.allSettled([watch(identity, log), beforeStart?.(identity)]);
  if (watching.status === 'rejected' || written.status === 'rejected') {
    child.stdin.destroy();
    const watchdog = watching.status === 'fulfilled' ? watching.value : undefined;
    await Promise.all([left, child, watchdog?.done()]);
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

/**
 * Looks whether a command can be started before anything is started for it. The shell that stands in for the
 * command would only answer with exit code 127, which a command may also mean itself.
 */

/** Where a program is looked for when the environment names no place. */
const defaultPath = '/usr/local/bin:/usr/bin:/bin';

/** Throws SPAWN unless `program` is an executable file, found as a shell would find it, and `cwd` a directory. */
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

/** Whether `file` is an executable file, and not a directory, which has the same bit. */
export async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}
