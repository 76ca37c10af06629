/**
 * Runs one ESPHome command and reports how it ended.
 *
 * It returns when the last process of the command's session is gone, not when the command ends: if a slot or a lock
 * were released before that, the next build would meet compilers that still write. No code parses a message to find
 * out what happened; each way of ending has a boolean.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';

import { onAbort } from '../async/calls.js';
import { ReceiverError } from '../errors.js';
import type { EsphomeCommand } from '../esphome/command.js';
import type { Log } from '../log.js';
import { createLineSplitter } from '../process/lines.js';
import { spawnSession, type SessionOptions, type SessionProcess } from '../process/session.js';
import { noMarks, readMarks, type OutputMarks } from './output.js';

export interface CompileRequest {
  readonly command: EsphomeCommand;
  readonly cwd: string;
  /** The complete environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  /** Aborts when the lease on the directory is lost. */
  readonly leaseSignal: AbortSignal;
  readonly timeoutMs: number;
  /** Longest time without any output. Default: unlimited. */
  readonly silenceTimeoutMs?: number;
  /** Time between the polite signal and the hard one. Default: 3000, as Device Builder 1.26. */
  readonly graceMs?: number;
  /** Gets each line with its terminator, both streams in order. Must not throw. */
  readonly onLine: (line: string) => void;
  /** See {@link SessionOptions}: the time to record the identity. */
  readonly beforeStart?: SessionOptions['beforeStart'];
  readonly log: Log;
  readonly spawn?: typeof spawnSession;
}

export interface CompileResult {
  /** Null when a signal ended the command, or when it was never started. */
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The receiver stopped it because the job was cancelled. */
  readonly cancelled: boolean;
  /** The receiver stopped it after `timeoutMs`. */
  readonly timedOut: boolean;
  /** The receiver stopped it because it printed nothing for `silenceTimeoutMs`. */
  readonly silent: boolean;
  /** The receiver stopped it because the lease was lost. */
  readonly leaseLost: boolean;
  /** Stopping it took the hard signal, so any file can be half written. */
  readonly forced: boolean;
  readonly marks: OutputMarks;
}

const defaultGraceMs = 3_000;
/** A control character costs six bytes in JSON, and a frame of the peer link holds 61,424 (Device Builder 1.26). */
const maxLineBytes = 8_192;
/** Lines to process before yielding to the event loop: some 10 ms of work. */
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

  /** Processes the lines in batches, and yields to the event loop between them. */
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
  // Either signal can have aborted while the command was being started.
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

/** The error for a compile that was cancelled or lost its lease, or null. */
export function endingError(result: Pick<CompileResult, 'cancelled' | 'leaseLost'>): ReceiverError | null {
  if (result.cancelled) return new ReceiverError('CANCELLED', 'the build was cancelled');
  if (result.leaseLost) return new ReceiverError('LOCK_LOST', 'the lock on the build directory was lost');
  return null;
}

function start(request: CompileRequest, onOutput: SessionOptions['onOutput']): Promise<SessionProcess> {
  const { command, cwd, env, beforeStart, log, spawn = spawnSession } = request;
  return spawn(command, { cwd, env, onOutput, log, ...(beforeStart && { beforeStart }) });
}
