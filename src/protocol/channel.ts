/**
 * The encrypted connection after the handshake: frames in, frames out.
 *
 * Encryption order is transmission order, because `send` encrypts and hands over in one synchronous step; a
 * single await between the two would let a pong overtake a chunk and break the cipher's counter for good. Once a
 * channel is closing nothing else leaves it, so no frame can follow a `terminate`.
 */
import { ReceiverError } from '../errors.js';
import type { ToOffloader, ToReceiver, Parsed } from './frames.js';
import type { IntentAnswer } from './intent.js';
import type { Cipher } from './noise.js';
import type { Transport, TransportEvents } from './transport.js';
import { encodeObject } from './wire-json.js';

/** Unsent bytes in the socket above which a sender of much waits. */
export const lowWaterBytes = 65_536;

/** A larger inbound message is malformed (ciphertext, tag included). */
export const maxInboundBytes = 61_440;
/** The original client refuses 61 440 bytes, so one less leaves here (ciphertext, tag included). */
export const maxOutboundBytes = 61_439;

export interface ChannelEvents<In> {
  /** Any message that decrypts to a JSON object, before `frame`: it proves that the other side lives. */
  anyDecryptedFrame?(): void;
  /** A frame, an unknown type to ignore, or a known type with wrong fields. */
  frame(parsed: Exclude<Parsed<In>, { kind: 'malformed' }>): void;
  /** Not binary, too large, not decryptable or no JSON object: answer `terminate('malformed_frame')`. Nothing follows. */
  malformed(): void;
  /** The connection has ended, from whichever side. Called exactly once. */
  closed(): void;
}

export interface Channel<In, Out> {
  /** Aborted when the connection has ended. */
  readonly signal: AbortSignal;
  readonly remoteAddress: string;
  /** Bytes sent here that have not left this process. */
  readonly bufferedBytes: number;
  /** The one answer to an intent; what comes in before it is a breach and ends the connection. */
  answer(message: IntentAnswer): boolean;
  /** Begins the delivery of frames, the kept ones first. Called at most once. */
  open(events: ChannelEvents<In>): void;
  /** False when the frame was dropped: the channel is closing or closed, or the message is too large. Never throws. */
  send(frame: Out): boolean;
  /** As {@link Transport.drained}. */
  drained(maxBytes: number): Promise<void>;
  pause(): void;
  resume(): void;
  /** Sends a `terminate` as the last frame and closes. Without effect when already closing. */
  terminate(reason: string): void;
  /** Closes in good order without a frame; `code` is a WebSocket close code. Nothing else is sent. */
  close(code?: number): void;
  destroy(): void;
}

/** The receiver's end of the session. */
export type ReceiverChannel = Channel<ToReceiver, ToOffloader>;
/** The offloader's end of the session. */
export type OffloaderChannel = Channel<ToOffloader, ToReceiver>;

export interface ChannelParts<In> {
  readonly transport: Transport;
  readonly inbox: Inbox;
  readonly outgoing: Cipher;
  readonly incoming: Cipher;
  readonly parse: (plaintext: Buffer) => Parsed<In>;
}

/** Builds the channel from what the handshake agreed on. */
export function createChannel<In, Out extends object>(parts: ChannelParts<In>): Channel<In, Out> {
  const { transport, inbox, outgoing, incoming, parse } = parts;
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
      inbox.divert({
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

/**
 * The messages of a connection while its owner changes: first the handshake, which waits for one at a time, then
 * whoever leads the session.
 *
 * Nothing is lost in between and nothing piles up: two messages are kept, then the transport is paused. A peer
 * that speaks before it was answered is cut off, because a paused connection would hide its end.
 */
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
