/**
 * Runs one helper program in its own session, with a time limit and a signal. However it ends, none of its processes
 * keeps running: a cancelled installer must not go on writing.
 */
import { onAbort } from '../async/calls.js';
import { ReceiverError } from '../errors.js';
import { type Log, silentLog } from '../log.js';
import { createLineSplitter } from '../process/lines.js';
import { spawnSession, type SessionOptions } from '../process/session.js';

const graceMs = 2_000;
const maxLineBytes = 4_096;
const keptLines = 50;

export interface StepOptions {
  readonly what: string;
  /** Default: unlimited. */
  readonly timeoutMs?: number;
  /** Longest time without any output. Default: unlimited. */
  readonly silenceTimeoutMs?: number;
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
 * longer than `timeoutMs`, or prints nothing for `silenceTimeoutMs` (the facts have `timedOut`), CANCELLED on abort,
 * SPAWN, and what `beforeStart` throws.
 */
export async function runStep(
  command: readonly [string, ...string[]],
  options: StepOptions,
): Promise<string> {
  const {
    what,
    timeoutMs,
    silenceTimeoutMs,
    cwd,
    env,
    onLine,
    beforeStart,
    log = silentLog,
    signal,
  } = options;
  const lines: string[] = [];
  const splitter = createLineSplitter({
    maxLineBytes,
    onLine: (line) => {
      lines.push(line);
      if (lines.length > keptLines) lines.shift();
      onLine?.(line);
    },
  });
  if (signal?.aborted) throw new ReceiverError('CANCELLED', `${what} was cancelled`);

  let silence: NodeJS.Timeout | undefined;
  const child = await spawnSession(command, {
    cwd,
    env: installerEnvironment(env),
    log,
    onOutput(chunk) {
      silence?.refresh();
      splitter.push(chunk);
    },
    ...(beforeStart && { beforeStart }),
  });
  let overdue: string | undefined;
  function limit(ms: number | undefined, message: string): NodeJS.Timeout | undefined {
    if (ms === undefined) return undefined;
    return setTimeout(() => {
      overdue ??= message;
      void child.stop({ graceMs });
    }, ms);
  }
  const timer = limit(timeoutMs, `${what} took longer than ${(timeoutMs ?? 0) / 1000} s`);
  silence = limit(silenceTimeoutMs, `${what} printed nothing for ${(silenceTimeoutMs ?? 0) / 1000} s`);
  const stopListening = signal && onAbort(signal, () => void child.stop({ graceMs }));
  const { code, signal: killer } = await child.exited;
  stopListening?.();
  clearTimeout(timer);
  clearTimeout(silence);
  silence = undefined;
  await child.settled();
  splitter.end();

  if (signal?.aborted) throw new ReceiverError('CANCELLED', `${what} was cancelled`);
  const output = lines.join('');
  const facts = { command, code, signal: killer, output, timedOut: overdue !== undefined };
  if (overdue !== undefined) throw new ReceiverError('PROVISION', overdue, facts);
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
    // An index that does not answer ends pip after about a minute.
    ...{ PIP_TIMEOUT: '20', PIP_RETRIES: '2' },
    ...(Object.fromEntries(seen) as Record<string, string>),
    PIP_DISABLE_PIP_VERSION_CHECK: '1',
    PIP_NO_INPUT: '1',
    PIP_USER: '0',
    PYTHONNOUSERSITE: '1',
    PYTHONUNBUFFERED: '1',
  };
}
