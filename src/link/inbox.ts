/**
 * The messages of a connection while its owner changes: first the handshake, which waits for one at a time, then
 * whoever leads the session.
 *
 * Nothing is lost in between and nothing piles up: two messages are kept, then the transport is paused. A peer
 * that speaks before it was answered is cut off, because a paused connection would hide its end.
 */
import { ReceiverError } from '../errors.js';
import type { Transport, TransportEvents } from './transport.js';

const keptMessages = 2;

export interface Inbox {
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
  /** The next message. Throws PROTOCOL for a text message, the end of the connection or the time limit. */
  next(timeoutMs: number): Promise<Buffer>;
  /** Makes the present or the next wait throw this. */
  fail(error: ReceiverError): void;
  /** From now on until `allow`, a message ends the connection. */
  forbid(): void;
  allow(): void;
  /** Hands what was kept, and everything that follows, to `events`. Called at most once; the delivery begins later. */
  divert(events: TransportEvents): void;
  /** Drops all further messages. The end of the connection is still reported. */
  stop(): void;
}

/** Starts the transport. */
export function openInbox(transport: Transport): Inbox {
  const ended = new AbortController();
  let kept: (Buffer | 'text')[] = [];
  let state: 'open' | 'forbidden' | 'stopped' = 'open';
  let failure: ReceiverError | undefined;
  let wake: (() => void) | undefined;
  let listener: TransportEvents | undefined;

  function arrived(message: Buffer | 'text'): void {
    if (state === 'stopped') return;
    if (state === 'forbidden') return transport.destroy();
    if (listener !== undefined) return deliver(listener, message);
    kept.push(message);
    if (kept.length >= keptMessages) transport.pause();
    wake?.();
  }

  function fail(error: ReceiverError): void {
    failure ??= error;
    wake?.();
  }

  transport.start({
    message: arrived,
    text: () => arrived('text'),
    closed() {
      // Without a reason it makes an error with its stack, for each connection.
      ended.abort('closed');
      wake?.();
      listener?.closed();
    },
  });

  return {
    signal: ended.signal,
    fail,
    async next(timeoutMs) {
      if (kept.length === 0 && failure === undefined && !ended.signal.aborted) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(() => {
            fail(new ReceiverError('PROTOCOL', 'the other side did not speak in time', { timeoutMs }));
          }, timeoutMs);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        wake = undefined;
      }
      const message = kept.shift();
      transport.resume();
      if (message === undefined)
        throw failure ?? new ReceiverError('PROTOCOL', 'the connection ended during the handshake');
      if (message === 'text') throw new ReceiverError('PROTOCOL', 'a text message came during the handshake');
      return message;
    },
    forbid() {
      state = 'forbidden';
      if (kept.length > 0) transport.destroy();
    },
    allow() {
      if (state === 'forbidden') state = 'open';
    },
    divert(events) {
      queueMicrotask(() => {
        for (const message of kept) if (state !== 'stopped') deliver(events, message);
        kept = [];
        listener = events;
        transport.resume();
        if (ended.signal.aborted) events.closed();
      });
    },
    stop() {
      state = 'stopped';
      kept = [];
      transport.resume();
    },
  };
}

function deliver(listener: TransportEvents, message: Buffer | 'text'): void {
  if (message === 'text') listener.text();
  else listener.message(message);
}
