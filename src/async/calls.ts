/**
 * Calls that overlap: one after the other (serial queue), one for all who ask meanwhile (single flight), only once, and
 * until a signal aborts. Each has a case that is easy to miss, such as the last caller that aborts, or a signal that was
 * aborted before anybody listened.
 */
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

export type SerialQueue = ReturnType<typeof createSerialQueue>;

export function createSerialQueue() {
  const { run, idle } = createKeyedQueue();
  return { run: <T>(work: () => Promise<T>): Promise<T> => run('', work), idle };
}

/** A queue for each key; different keys do not wait for each other. */
export function createKeyedQueue() {
  /** For each busy key, settles with its last call. */
  const tails = new Map<string, Promise<void>>();

  return {
    run<T>(key: string, work: () => Promise<T>): Promise<T> {
      const result = (tails.get(key) ?? Promise.resolve()).then(work);
      const removeTail = (): void => {
        if (tails.get(key) === tail) tails.delete(key);
      };
      const tail = result.then(removeTail, removeTail);
      tails.set(key, tail);
      return result;
    },
    /** Resolves when nothing runs or waits. Never rejects. */
    async idle(): Promise<void> {
      while (tails.size > 0) await Promise.all(tails.values());
    },
  };
}

/** Calls `listener` once: when the signal aborts, or at once when it has. Returns the function that stops listening. */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (signal?.aborted === true) listener();
  else signal?.addEventListener('abort', listener, { once: true });
  return () => signal?.removeEventListener('abort', listener);
}

/**
 * Settles as `promise` does, or rejects with the signal's reason (or `reasonOf()`) as soon as the signal is aborted. The
 * work behind the promise continues, and its later rejection is ignored.
 */
export async function raceAbort<T>(
  promise: T | PromiseLike<T>,
  signal: AbortSignal | undefined,
  reasonOf: () => unknown = () => signal?.reason,
): Promise<T> {
  let stopListening = (): void => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    stopListening = onAbort(signal, () => reject(reasonOf()));
  });
  try {
    return await Promise.race([aborted, promise]);
  } finally {
    stopListening();
  }
}
