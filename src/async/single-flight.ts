/**
 * Shares one piece of work among all callers that request it while it runs. A caller that aborts does not stop it for
 * the others; the last one stops it and waits for its end, so that nothing runs for a cancelled job.
 *
 * Its output, which is bounded, goes to all callers, including lines from before they joined. Only a few pieces of work
 * run at once: each is a pip with a compiler or two.
 */
import { raceAbort } from './abort.js';
import type { Clock } from './clock.js';

export interface FlightCaller {
  readonly signal: AbortSignal;
  /** Receives lines with their terminator; none after the call has settled. */
  readonly output: (line: string) => void;
}

export type SharedWork<T> = (key: string, caller: FlightCaller) => Promise<T>;

export interface SingleFlightOptions {
  readonly maxAtOnce: number;
  /** Per piece of work; the rest is not shown. */
  readonly maxLines: number;
  /** Longer lines are cut. In UTF-16 code units. */
  readonly maxLineLength: number;
}

interface Flight<T> {
  readonly controller: AbortController;
  readonly callers: Set<FlightCaller>;
  readonly lines: string[];
  result: Promise<T>;
}

/** The result settles as `work` does, or rejects with the reason of the caller's own signal. */
export function createSingleFlight<T>(work: SharedWork<T>, options: SingleFlightOptions): SharedWork<T> {
  const entries = new Map<string, Flight<T>>();
  const running = new Set<Promise<unknown>>();

  function begin(key: string): Flight<T> {
    const controller = new AbortController();
    const entry: Flight<T> = {
      controller,
      callers: new Set(),
      lines: [],
      result: Promise.resolve() as never,
    };
    const output = (line: string): void => {
      const shown = shownLine(line, entry.lines.length, options);
      if (shown === undefined) return;
      entry.lines.push(shown);
      for (const caller of entry.callers) caller.output(shown);
    };
    entries.set(key, entry);
    entry.result = run(key, { signal: controller.signal, output }).finally(() => forget(key, entry));
    return entry;
  }

  async function run(key: string, caller: FlightCaller): Promise<T> {
    if (running.size >= options.maxAtOnce) caller.output('Waiting for other installations to end.\n');
    while (running.size >= options.maxAtOnce) {
      await raceAbort(Promise.race(running), caller.signal);
      // Both can happen in one tick, and work must not start without a caller.
      caller.signal.throwIfAborted();
    }
    const result = work(key, caller);
    const ended = result.then(nothing, nothing);
    running.add(ended);
    try {
      return await result;
    } finally {
      running.delete(ended);
    }
  }

  function forget(key: string, entry: Flight<T>): void {
    if (entries.get(key) === entry) entries.delete(key);
  }

  return async function share(key, caller) {
    const { signal } = caller;
    signal.throwIfAborted();
    const entry = entries.get(key) ?? begin(key);
    entry.callers.add(caller);
    for (const line of entry.lines) caller.output(line);
    try {
      return await raceAbort(entry.result, signal);
    } catch (error) {
      entry.callers.delete(caller);
      if (signal.aborted && entry.callers.size === 0) {
        // A later caller starts anew.
        forget(key, entry);
        entry.controller.abort(signal.reason);
        await entry.result.catch(nothing);
      }
      throw error;
    } finally {
      entry.callers.delete(caller);
    }
  };
}

function nothing(): void {}

function shownLine(
  line: string,
  before: number,
  { maxLines, maxLineLength }: SingleFlightOptions,
): string | undefined {
  if (before > maxLines) return undefined;
  if (before === maxLines) return '[the rest of the installation is not shown]\n';
  return line.length > maxLineLength ? `${line.slice(0, maxLineLength)}…\n` : line;
}

/**
 * Shares `work` among all calls while it runs and within `freshMs` after its end. A failure is shared like a result.
 */
export function shareInFlight<T>(
  work: () => Promise<T>,
  { freshMs, clock }: { readonly freshMs: number; readonly clock: Pick<Clock, 'steady'> },
): () => Promise<T> {
  let flight: Promise<T> | null = null;
  let endedAt = 0;
  return () => {
    if (flight !== null && clock.steady() - endedAt < freshMs) return flight;
    endedAt = Infinity;
    flight = work().finally(() => (endedAt = clock.steady()));
    return flight;
  };
}

/** Runs `work` on the first call; later calls get the same result. For a cleanup with several triggers. */
export function runOnce<T>(work: () => T): () => T {
  let done: { readonly result: T } | undefined;
  return () => (done ??= { result: work() }).result;
}
