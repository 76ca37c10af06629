/**
 * Runs one helper program in its own session, with a time limit and a signal. However it ends, none of its processes
 * keeps running: a cancelled installer must not go on writing.
 */
import { onAbort } from '../async/abort.js';
import { ReceiverError } from '../errors.js';
import { type Log, silentLog } from '../log.js';
import { createLineSplitter } from '../process/lines.js';
import { spawnSession, type SessionOptions } from '../process/session.js';

const graceMs = 2_000;
const maxLineBytes = 4_096;
const keptLines = 50;

export interface StepOptions {
  readonly what: string;
  readonly timeoutMs: number;
  readonly cwd: string;
  /** The host's environment, which {@link installerEnvironment} filters for the program. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Gets every line with its terminator, both streams. */
  readonly onLine?: ((line: string) => void) | undefined;
  readonly beforeStart?: SessionOptions['beforeStart'];
  readonly log?: Log | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Returns the last 50 lines of output. Throws PROVISION when the program fails (the facts contain the output) or takes
 * longer than `timeoutMs` (the facts have `timedOut`), CANCELLED on abort, SPAWN, and what `beforeStart` throws.
 */
export async function runStep(
  command: readonly [string, ...string[]],
  options: StepOptions,
): Promise<string> {
  const { what, timeoutMs, cwd, env, onLine, beforeStart, log = silentLog, signal } = options;
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
    env: installerEnvironment(env),
    log,
    onOutput: (chunk) => splitter.push(chunk),
    ...(beforeStart && { beforeStart }),
  });
  const stopListening = onAbort(giveUp, () => void child.stop({ graceMs }));
  const { code, signal: killer } = await child.exited;
  stopListening();
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

/** What pip needs to reach the package index and a proxy. No more, because packages run code during installation. */
const allowed =
  /^(?:PATH|HOME|LANG|LC_ALL|TZ|TMPDIR|NETRC|XDG_\w+|PIP_\w+|(?:http|https|all|no)_proxy|SSL_CERT_\w+|\w+_CA_BUNDLE)$/i;
/** Variables that would make pip install outside the environment. */
const misdirecting = /^PIP_(?:TARGET|PREFIX|ROOT|USER|REQUIRE_VIRTUALENV)$/;

/** The part of the host's environment that an installer can see, without the host's tokens and credentials. */
function installerEnvironment(env: StepOptions['env']): Record<string, string> {
  const seen = Object.entries(env).filter(
    ([name, value]) => value !== undefined && allowed.test(name) && !misdirecting.test(name),
  );
  return {
    ...(Object.fromEntries(seen) as Record<string, string>),
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    PIP_NO_INPUT: '1',
    PIP_USER: '0',
    PYTHONNOUSERSITE: '1',
    PYTHONUNBUFFERED: '1',
  };
}
