/**
 * Listens to an abort signal and lets go of it again (short because it is two primitives). A signal can live as long as
 * the receiver, and every listener left on it keeps its closure alive; a signal that was aborted before anybody listened
 * fires no event at all.
 */

/** Calls `listener` once: when the signal aborts, or at once when it has. Returns the function that stops listening. */
export function onAbort(signal: AbortSignal | undefined, listener: () => void): () => void {
  if (signal?.aborted === true) listener();
  else signal?.addEventListener('abort', listener, { once: true });
  return () => signal?.removeEventListener('abort', listener);
}

/**
 * Settles as `promise` does, or rejects with the signal's reason (or `reasonOf()`) as soon as the signal is aborted. The
 * work behind the promise goes on, and a later rejection of it is nobody's.
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
