/**
 * First layer of the lock: a FIFO queue per key within one process, so that at most one request at a time uses the lock
 * on disk, and waiting is free. A place passes on only when its holder leaves, even if the lock on disk was lost: that
 * holder must end its build first.
 */
import { onAbort } from '../async/calls.js';
import { ReceiverError } from '../errors.js';

/** The purpose of a lock's holder or waiter. */
export interface LineRequest {
  readonly reason: string;
}

export interface LinePlace {
  /** Passes the place to the next request. Idempotent. */
  leave(): void;
}

export interface EnterOptions {
  readonly reason: string;
  /** Ends the wait with CANCELLED. */
  readonly signal?: AbortSignal | undefined;
  /** A time of `performance.now()` that ends the wait with LOCK_TIMEOUT. */
  readonly until?: number | undefined;
  /** Called once if there is a wait, with the reason of the current holder. */
  readonly onBlocked?: ((holder: LineRequest) => void) | undefined;
}

interface Line {
  holder: LineRequest;
  readonly waiting: Set<() => void>;
}

const lines = new Map<string, Line>();

/** Resolves when the caller is first in line. Throws CANCELLED, LOCK_TIMEOUT. */
export async function enterLine(key: string, options: EnterOptions): Promise<LinePlace> {
  const { reason, signal, until = Infinity, onBlocked } = options;
  if (signal?.aborted) throw cancelled();
  const line = lines.get(key);
  if (!line) {
    const fresh: Line = { holder: { reason }, waiting: new Set() };
    lines.set(key, fresh);
    return placeIn(key, fresh);
  }
  await waitInLine(line, { signal, until, onBlocked });
  line.holder = { reason };
  return placeIn(key, line);
}

function waitInLine(
  line: Line,
  { signal, until = Infinity, onBlocked }: Omit<EnterOptions, 'reason'>,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const giveUp = (error: ReceiverError): void => {
      stopWaiting();
      reject(error);
    };
    const timer = Number.isFinite(until)
      ? setTimeout(() => giveUp(timedOut(line.holder)), Math.max(0, until - performance.now()))
      : undefined;
    const enter = (): void => {
      stopWaiting();
      resolve();
    };
    const stopWaiting = (): void => {
      line.waiting.delete(enter);
      clearTimeout(timer);
      stopListening();
    };
    line.waiting.add(enter);
    const stopListening = onAbort(signal, () => giveUp(cancelled()));
    onBlocked?.(line.holder);
  });
}

function placeIn(key: string, line: Line): LinePlace {
  let left = false;
  return {
    leave() {
      if (left) return;
      left = true;
      const [next] = line.waiting;
      if (next) next();
      else lines.delete(key);
    },
  };
}

export function cancelled(): ReceiverError {
  return new ReceiverError('CANCELLED', 'the wait for a lock was cancelled');
}

export function timedOut(holder: LineRequest | null): ReceiverError {
  return new ReceiverError('LOCK_TIMEOUT', 'the lock was not free in time', { heldFor: holder?.reason });
}
