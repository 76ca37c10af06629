/**
 * The encrypted connection after the handshake, which sends and receives frames. `send` encrypts and transmits in one
 * synchronous step, so both have the same order: an await between them would let a pong overtake a chunk and break the
 * cipher's counter for good. A closing channel sends nothing else, so no frame can follow a `terminate`.
 */
import { ReceiverError } from '../errors.js';
import type { ToOffloader, ToReceiver, Parsed } from './frames.js';
import type { IntentAnswer } from './intent.js';
import type { NoiseSession } from './noise.js';
import type { Transport, TransportEvents } from './transport.js';
import { encodeObject } from './wire-json.js';

/** The amount of unsent bytes above which bulk senders wait. */
export const lowWaterBytes = 65_536;

/** A larger inbound message is malformed. Ciphertext with its tag, like the outbound limit. */
export const maxInboundBytes = 61_440;
/** One byte less than Device Builder's client refuses. */
export const maxOutboundBytes = 61_439;

export interface ChannelEvents<In> {
  /** Any message that decrypts to a JSON object, before `frame`: it proves that the other side is alive. */
  anyDecryptedFrame?(): void;
  /** A frame, an unknown type to ignore, or a known type with wrong fields. */
  frame(parsed: Exclude<Parsed<In>, { kind: 'malformed' }>): void;
  /** Not binary, too large, not decryptable or not a JSON object: answer `terminate('malformed_frame')`. The last event. */
  malformed(): void;
  /** The connection has ended, from either side. Called exactly once. */
  closed(): void;
}

/** The members of the transport keep their meaning. */
export interface Channel<In, Out> extends Omit<Transport, 'start' | 'send'> {
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
  /** Sends the answer to an intent; a message that arrives before it is a violation and ends the connection. */
  answer(message: IntentAnswer): boolean;
  /** Starts the delivery of frames, the kept ones first. Called at most once. */
  open(events: ChannelEvents<In>): void;
  /** False when the frame was dropped: the channel is closing or closed, or the message is too large. Never throws. */
  send(frame: Out): boolean;
  /** Sends a `terminate` as the last frame and closes. No effect when already closing. */
  terminate(reason: string): void;
}

export type ReceiverChannel = Channel<ToReceiver, ToOffloader>;
export type OffloaderChannel = Channel<ToOffloader, ToReceiver>;

export function createChannel<In, Out extends object>(
  transport: Transport,
  inbox: Inbox,
  { outgoing, incoming }: Pick<NoiseSession, 'outgoing' | 'incoming'>,
  parse: (plaintext: Buffer) => Parsed<In>,
): Channel<In, Out> {
  let closing = false;

  function transmit(message: object): boolean {
    if (inbox.signal.aborted) return false;
    const plaintext = encodeObject(message);
    if (plaintext.length + outgoing.overheadBytes > maxOutboundBytes) return false;
    transport.send(outgoing.encrypt(plaintext));
    return true;
  }

  function read(message: Buffer): Parsed<In> {
    if (message.length > maxInboundBytes) return { kind: 'malformed' };
    try {
      return parse(incoming.decrypt(message));
    } catch {
      return { kind: 'malformed' };
    }
  }

  function close(code?: number): void {
    closing = true;
    inbox.stop();
    transport.close(code);
  }

  return {
    signal: inbox.signal,
    remoteAddress: transport.remoteAddress,
    get bufferedBytes() {
      return transport.bufferedBytes;
    },
    answer(message) {
      inbox.allow();
      return !closing && transmit(message);
    },
    open(events) {
      let broken = false;
      function malformed(): void {
        broken = true;
        events.malformed();
      }
      inbox.forward({
        message(data) {
          if (broken || closing) return;
          const parsed = read(data);
          if (parsed.kind === 'malformed') return malformed();
          events.anyDecryptedFrame?.();
          events.frame(parsed);
        },
        text() {
          if (!broken && !closing) malformed();
        },
        closed: () => events.closed(),
      });
    },
    send: (frame) => !closing && transmit(frame),
    drained: (maxBytes) => transport.drained(maxBytes),
    pause: () => transport.pause(),
    resume: () => transport.resume(),
    terminate(reason) {
      if (closing) return;
      transmit({ type: 'terminate', reason });
      close();
    },
    close,
    destroy() {
      closing = true;
      transport.destroy();
    },
  };
}

/** The number of kept messages at which the transport is paused. */
const keptMessages = 2;

export type Inbox = ReturnType<typeof openInbox>;

/**
 * Starts the transport and keeps its messages, first for the handshake, which waits for one at a time, then for the
 * session. No message is lost in between, and few are kept. A peer that sends before it was answered is disconnected,
 * because a paused connection would hide its close.
 */
export function openInbox(transport: Transport) {
  const ended = new AbortController();
  let kept: (Buffer | 'text')[] = [];
  let state: 'open' | 'forbidden' | 'stopped' = 'open';
  let failure: ReceiverError | undefined;
  let wake: (() => void) | undefined;
  let listener: TransportEvents | undefined;

  function receive(message: Buffer | 'text'): void {
    if (state === 'stopped') return;
    if (state === 'forbidden') return transport.destroy();
    if (listener !== undefined) return deliver(listener, message);
    kept.push(message);
    if (kept.length >= keptMessages) transport.pause();
    wake?.();
  }

  /** Makes the current or the next wait throw this error. */
  function fail(error: ReceiverError): void {
    failure ??= error;
    wake?.();
  }

  transport.start({
    message: receive,
    text: () => receive('text'),
    closed() {
      // Without a reason, each abort creates an error with a stack.
      ended.abort('closed');
      wake?.();
      listener?.closed();
    },
  });

  return {
    /** Aborted when the connection has ended. */
    get signal(): AbortSignal {
      return ended.signal;
    },
    fail,
    /** The next message. Throws PROTOCOL for a text message, the end of the connection or a timeout. */
    async next(timeoutMs: number): Promise<Buffer> {
      if (kept.length === 0 && failure === undefined && !ended.signal.aborted) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(() => {
            const facts = { timeoutMs, reason: 'silent' };
            fail(new ReceiverError('PROTOCOL', `no message arrived within ${timeoutMs} ms`, facts));
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
        throw (
          failure ??
          new ReceiverError('PROTOCOL', 'the connection ended during the handshake', { reason: 'hung_up' })
        );
      if (message === 'text')
        throw new ReceiverError('PROTOCOL', 'expected a binary handshake message, got a text message');
      return message;
    },
    /** Until `allow`, any message ends the connection. */
    forbid(): void {
      state = 'forbidden';
      if (kept.length > 0) transport.destroy();
    },
    allow(): void {
      if (state === 'forbidden') state = 'open';
    },
    /** Delivers the kept and all further messages to `events`, asynchronously. Called at most once. */
    forward(events: TransportEvents): void {
      queueMicrotask(() => {
        for (const message of kept) if (state !== 'stopped') deliver(events, message);
        kept = [];
        listener = events;
        transport.resume();
        if (ended.signal.aborted) events.closed();
      });
    },
    /** Drops all further messages. The end of the connection is still reported. */
    stop(): void {
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
