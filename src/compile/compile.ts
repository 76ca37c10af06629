/**
 * Runs one ESPHome command to its end, whichever end that is, and says how it came about.
 *
 * It returns when the last process of the command's session is gone, not when the command has ended: a slot or a
 * lock given on before that lets the next build meet compilers that still write. Nothing here reads a message to
 * find out what happened; every way of ending is a boolean of its own.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

import { onAbort } from '../async/abort.js';
import { ReceiverError } from '../errors.js';
import type { EsphomeCommand } from '../esphome/command.js';
import type { Log } from '../log.js';
import { createLineSplitter } from '../process/lines.js';
import { spawnSession, type SessionOptions, type SessionProcess } from '../process/session.js';
import { noMarks, readMarks, type OutputMarks } from './output.js';

export interface CompileRequest {
  /** The whole command line. */
  readonly command: EsphomeCommand;
  /** Absolute. */
  readonly cwd: string;
  /** The complete environment. */
  readonly env: Readonly<Record<string, string>>;
  /** Ends it as cancelled. */
  readonly signal: AbortSignal;
  /** Ends it because the directory is no longer ours. */
  readonly leaseSignal: AbortSignal;
  /** Longest time, in milliseconds. */
  readonly timeoutMs: number;
  /** Longest time without any output, in milliseconds. Default: as long as it likes. */
  readonly silenceTimeoutMs?: number;
  /** Time between the polite signal and the hard one, in milliseconds. Default: 3000, as Device Builder 1.26. */
  readonly graceMs?: number;
  /** Gets each line with its terminator, both streams in order. Must not throw. */
  readonly onLine: (line: string) => void;
  /** See {@link SessionOptions}: the moment to write the identity down. */
  readonly beforeStart?: SessionOptions['beforeStart'];
  readonly log: Log;
  /** For tests. */
  readonly spawn?: typeof spawnSession;
}

export interface CompileResult {
  /** Null when a signal ended the command, or when it was never started. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** We ended it, because the job was cancelled. */
  readonly cancelled: boolean;
  /** We ended it, because it took longer than `timeoutMs`. */
  readonly timedOut: boolean;
  /** We ended it, because it printed nothing for `silenceTimeoutMs`. */
  readonly silent: boolean;
  /** We ended it, because the lease was lost. */
  readonly leaseLost: boolean;
  /** Ending it took the hard signal, so anything may be half written. */
  readonly forced: boolean;
  readonly marks: OutputMarks;
}

const defaultGraceMs = 3_000;
/** A control character costs six bytes in JSON, and a frame of the peer link holds 61,424 (Device Builder 1.26). */
const maxLineBytes = 8_192;
/** Lines that are read before others have their turn: some 10 ms of work. */
const linesPerTurn = 200;

/** Throws `SPAWN` when the command cannot be started, and what `beforeStart` throws; every other end is a result. */
export async function runCompile(request: CompileRequest): Promise<CompileResult> {
  const { signal, leaseSignal, timeoutMs, silenceTimeoutMs, graceMs = defaultGraceMs, onLine } = request;
  const ending = {
    ...{ cancelled: signal.aborted, leaseLost: leaseSignal.aborted },
    ...{ timedOut: false, silent: false },
  };
  const notStarted = { exitCode: null, signal: null, forced: false, marks: noMarks };
  if (ending.cancelled || ending.leaseLost) return { ...notStarted, ...ending };

  let marks = noMarks;
  const waiting: string[] = [];
  const lines = createLineSplitter({ maxLineBytes, onLine: (line) => void waiting.push(line) });
  let reading: Promise<void> | undefined;

  /** A few lines now, the rest in later turns, between which everybody else has theirs. */
  async function read(): Promise<void> {
    for (;;) {
      for (const line of waiting.splice(0, linesPerTurn)) {
        marks = readMarks(marks, line);
        onLine(line);
      }
      if (waiting.length === 0) return;
      await nextTurn();
      if (ending.cancelled || ending.leaseLost) waiting.length = 0;
    }
  }

  let silence: NodeJS.Timeout | undefined;
  const session = await start(request, (chunk) => {
    silence?.refresh();
    lines.push(chunk);
    reading = read();
    return reading;
  });
  let stopping: ReturnType<SessionProcess['stop']> | undefined;
  const endBy = (way: keyof typeof ending) => (): void => {
    ending[way] = true;
    stopping ??= session.stop({ graceMs });
  };
  // Either may have gone off while the command was being started.
  const stopListening = [onAbort(signal, endBy('cancelled')), onAbort(leaseSignal, endBy('leaseLost'))];
  const timer = setTimeout(endBy('timedOut'), timeoutMs);
  if (silenceTimeoutMs !== undefined) silence = setTimeout(endBy('silent'), silenceTimeoutMs);
  const status = await session.exited;
  clearTimeout(timer);
  clearTimeout(silence);
  silence = undefined;
  for (const stop of stopListening) stop();
  const report = await stopping;
  await session.settled();
  await reading;
  lines.end();
  await read();
  return {
    ...{ exitCode: status.code, signal: status.signal },
    ...ending,
    ...{ forced: report?.forced ?? false, marks },
  };
}

/** What a compile that was cancelled or robbed of its lease stands for as an error, or null. */
export function endingError(result: Pick<CompileResult, 'cancelled' | 'leaseLost'>): ReceiverError | null {
  if (result.cancelled) return new ReceiverError('CANCELLED', 'the build was cancelled');
  if (result.leaseLost) return new ReceiverError('LOCK_LOST', 'the lock on the build directory was lost');
  return null;
}

function start(request: CompileRequest, onOutput: SessionOptions['onOutput']): Promise<SessionProcess> {
  const { command, cwd, env, beforeStart, log, spawn = spawnSession } = request;
  return spawn(command, { cwd, env, onOutput, log, ...(beforeStart && { beforeStart }) });
}
