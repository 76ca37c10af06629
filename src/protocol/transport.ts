/**
 * The connection that the peer link needs: an ordered, reliable stream of binary messages, independent of any socket
 * library. A mount adapts a socket to this interface, and tests connect two ends in memory. Messages that arrive before
 * `start` are kept, because a peer can send before the receiver listens: a lost first message looks like a handshake that
 * never ends.
 */

import { createCondition } from '../async/signals.js';

/** Called one at a time, in the order of arrival, never inside `start`. */
export interface TransportEvents {
  /** A complete binary message. The buffer belongs to the listener. */
  message(data: Buffer): void;
  /** A text message, which the peer link does not use. Its content is dropped. */
  text(): void;
  /** The connection has ended, from either side. Called exactly once, after the last message. */
  closed(): void;
}

export interface Transport {
  /** The address of the other side, without port, and without the IPv6 prefix of a mapped IPv4 address. */
  readonly remoteAddress: string;
  /** Sent bytes that have not left this process. */
  readonly bufferedBytes: number;
  /** Starts the delivery. Called once. */
  start(events: TransportEvents): void;
  /** Sends one binary message. Never throws; after the end the message is dropped. */
  send(data: Uint8Array): void;
  /** Resolves when `bufferedBytes` is at most `maxBytes`, or when the connection has ended. Never rejects. */
  drained(maxBytes: number): Promise<void>;
  /** Stops reading. The end of the connection can go unnoticed until `resume`. */
  pause(): void;
  resume(): void;
  /** Sends the buffered messages, then ends the connection in good order. `code` is a WebSocket close code. */
  close(code?: number): void;
  /** Ends the connection at once and drops the buffered messages. */
  destroy(): void;
}

/**
 * One end of a connection inside one process, for tests and for hosts that connect to themselves. It behaves like a
 * socket: delivery is asynchronous and in order, a paused reader makes the writer's `bufferedBytes` grow, messages sent
 * before a close still arrive, and each end is told of the close once.
 */
export interface MemoryTransport extends Transport {
  /** Sends a text message, which no real peer does. */
  sendText(): void;
}

type TransportItem = Buffer | 'text' | 'end';

/** Both ends of a new connection. Each sees the other at `remoteAddress`, by default 127.0.0.1. */
export function memoryTransportPair(remoteAddress = '127.0.0.1'): [MemoryTransport, MemoryTransport] {
  const [left, right] = [newEnd(), newEnd()];
  return [transportOf(left, right, remoteAddress), transportOf(right, left, remoteAddress)];
}

type End = ReturnType<typeof newEnd>;

function newEnd() {
  return {
    events: undefined as TransportEvents | undefined,
    /** Items in transit to the other end, in order. */
    outbox: [] as TransportItem[],
    bufferedBytes: 0,
    paused: false,
    scheduled: false,
    /** Sends nothing more. */
    closing: false,
    ended: false,
    /** Woken when a message has left or the connection has ended. */
    drain: createCondition(),
  };
}

function transportOf(own: End, other: End, remoteAddress: string): MemoryTransport {
  function push(item: TransportItem): void {
    if (own.closing) return;
    own.outbox.push(item);
    if (item instanceof Buffer) own.bufferedBytes += item.length;
    if (item === 'end') own.closing = true;
    scheduleDelivery(own, other);
  }

  return {
    remoteAddress,
    get bufferedBytes() {
      return own.bufferedBytes;
    },
    start(events) {
      own.events = events;
      if (own.ended) setImmediate(() => events.closed());
      else scheduleDelivery(other, own);
    },
    send: (data) => push(Buffer.from(data)),
    sendText: () => push('text'),
    drained: (maxBytes) => own.drain.until(() => own.ended || own.bufferedBytes <= maxBytes),
    pause() {
      own.paused = true;
    },
    resume() {
      own.paused = false;
      scheduleDelivery(other, own);
    },
    close: () => push('end'),
    destroy() {
      for (const end of [own, other]) {
        if (end.ended) continue;
        end.outbox.length = 0;
        end.bufferedBytes = 0;
        finish(end);
        const { events } = end;
        if (events !== undefined) setImmediate(() => events.closed());
      }
    },
  };
}

/** Delivers one item in a later tick of the event loop, and then the next. */
function scheduleDelivery(from: End, to: End): void {
  if (to.scheduled) return;
  to.scheduled = true;
  setImmediate(() => {
    to.scheduled = false;
    if (to.paused || to.ended || to.events === undefined) return;
    const item = from.outbox.shift();
    if (item === undefined) return;
    scheduleDelivery(from, to);
    if (item === 'end') return deliverEnd(from, to, to.events);
    if (item === 'text') return to.events.text();
    from.bufferedBytes -= item.length;
    from.drain.wake();
    to.events.message(item);
  });
}

/** A side that has not closed yet answers with its own end, after the messages that it has already sent. */
function deliverEnd(from: End, to: End, events: TransportEvents): void {
  if (!to.closing) {
    to.outbox.push('end');
    scheduleDelivery(to, from);
  }
  finish(to);
  events.closed();
}

function finish(end: End): void {
  end.ended = true;
  end.closing = true;
  end.drain.wake();
}
