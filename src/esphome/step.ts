/**
 * Runs one helper program to its end, in a session of its own, under a time limit and a signal. Whichever way it
 * ends, nothing of it is left running: an installer that was given up must not go on writing.
 */
import { ReceiverError } from '../errors.js';
import { type Log, silentLog } from '../log.js';
import { createLineSplitter } from '../process/lines.js';
import { spawnSession } from '../process/session.js';

const graceMs = 2_000;
const maxLineBytes = 4_096;
/** How much of the output is kept for the error and the caller. */
const keptLines = 50;

export interface StepOptions {
  /** The step's name in messages. */
  readonly what: string;
  readonly timeoutMs: number;
  readonly cwd: string;
  /** Gets every line with its end, both streams. */
  readonly onLine?: ((line: string) => void) | undefined;
  readonly log?: Log;
  readonly signal?: AbortSignal;
}

/**
 * The last 50 lines that the program printed. Throws PROVISION when it ends with anything but 0 (the output is in
 * the facts) or takes longer than `timeoutMs` (the facts say `timedOut`), CANCELLED on abort, SPAWN as such.
 */
export async function runStep(
  command: readonly [string, ...string[]],
  options: StepOptions,
): Promise<string> {
  const { what, timeoutMs, cwd, onLine, log = silentLog, signal } = options;
  const lines: string[] = [];
  const splitter = createLineSplitter({
    maxLineBytes,
    onLine: (line) => {
      lines.push(line);
      if (lines.length > keptLines) lines.shift();
      onLine?.(line);
    },
  });
  const timeout = AbortSignal.timeout(timeoutMs);
  const giveUp = signal ? AbortSignal.any([signal, timeout]) : timeout;
  if (signal?.aborted) throw new ReceiverError('CANCELLED', `${what} was cancelled`);

  const child = await spawnSession(command, {
    cwd,
    env: environment(),
    log,
    onOutput: (chunk) => splitter.push(chunk),
  });
  const stop = (): void => void child.stop({ graceMs });
  giveUp.addEventListener('abort', stop, { once: true });
  if (giveUp.aborted) stop();
  const { code, signal: killer } = await child.exited;
  giveUp.removeEventListener('abort', stop);
  await child.settled();
  splitter.end();

  if (signal?.aborted) throw new ReceiverError('CANCELLED', `${what} was cancelled`);
  const output = lines.join('');
  const facts = { command, code, signal: killer, output, timedOut: timeout.aborted };
  if (timeout.aborted)
    throw new ReceiverError('PROVISION', `${what} took longer than ${timeoutMs / 1000} s`, facts);
  if (code !== 0)
    throw new ReceiverError('PROVISION', `${what} failed (${killer ?? `exit code ${code}`})`, facts);
  return output;
}

/** The host's own, which holds the way to the package index, less what would lead Python out of its environment. */
function environment(): Record<string, string> {
  const led = /^(PYTHON(HOME|PATH|USERBASE)|VIRTUAL_ENV|PIP_(TARGET|PREFIX|ROOT|USER|REQUIRE_VIRTUALENV))$/;
  const kept = Object.entries(process.env).filter(([name]) => !led.test(name));
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    PIP_NO_INPUT: '1',
    PYTHONUNBUFFERED: '1',
  };
}
