/**
 * What the peer link needs from a connection: one ordered, reliable stream of binary messages.
 *
 * The link knows no socket library; a mount joins one to this interface, and tests join two ends in memory.
 * Messages that arrive before `start` are kept, because a peer may speak while the receiver still looks at its
 * address: a lost first message looks like a handshake that never ends.
 */

import { createCondition, type Condition } from '../async/condition.js';

/** What a transport reports. The functions are called one at a time, in the order of arrival, never inside `start`. */
export interface TransportEvents {
  /** One whole binary message. The buffer belongs to the listener. */
  message(data: Buffer): void;
  /** A text message arrived, which the peer link does not know. Its content is dropped. */
  text(): void;
  /** The connection has ended, from whichever side. Called exactly once, after the last message. */
  closed(): void;
}

export interface Transport {
  /** The address of the other side, without port and without the prefix of an IPv4 address in IPv6. */
  readonly remoteAddress: string;
  /** Bytes that were sent here but have not left this process. */
  readonly bufferedBytes: number;
  /** Begins the delivery. Called once. */
  start(events: TransportEvents): void;
  /** Sends one binary message. Never throws; after the end the message is dropped. */
  send(data: Uint8Array): void;
  /** Resolves when `bufferedBytes` is at most `maxBytes`, or when the connection has ended. Never rejects. */
  drained(maxBytes: number): Promise<void>;
  /** Stops reading from the other side. The end of the connection may go unnoticed until `resume`. */
  pause(): void;
  resume(): void;
  /** Sends what is buffered, then ends the connection in good order. `code` is a WebSocket close code. */
  close(code?: number): void;
  /** Ends the connection at once and drops what is buffered. */
  destroy(): void;
}

/**
 * Two ends of a connection inside one process, for tests and for hosts that talk to themselves.
 *
 * It behaves as a socket does where that matters: delivery is later and in order, a paused reader makes the
 * writer's `bufferedBytes` grow, what was sent before a close still arrives, and each end learns of the end once.
 */
export interface MemoryTransport extends Transport {
  /** Sends a text message, which no true peer does. */
  sendText(): void;
}

type TransportItem = Buffer | 'text' | 'end';

interface End {
  events: TransportEvents | undefined;
  /** What is on its way to the other end, in order. */
  readonly outbox: TransportItem[];
  bufferedBytes: number;
  paused: boolean;
  scheduled: boolean;
  /** Nothing more is sent. */
  closing: boolean;
  /** The connection is gone. */
  ended: boolean;
  /** Woken whenever a message has left, or the connection has. */
  readonly drain: Condition;
}

/** Both ends of a new connection. Each sees the other at `remoteAddress`, by default 127.0.0.1. */
export function memoryTransportPair(remoteAddress = '127.0.0.1'): [MemoryTransport, MemoryTransport] {
  const [left, right] = [newEnd(), newEnd()];
  return [transportOf(left, right, remoteAddress), transportOf(right, left, remoteAddress)];
}

function newEnd(): End {
  return {
    events: undefined,
    outbox: [],
    bufferedBytes: 0,
    paused: false,
    scheduled: false,
    closing: false,
    ended: false,
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

/** Hands one item over on a later turn of the event loop, and then the next. */
function scheduleDelivery(from: End, to: End): void {
  if (to.scheduled) return;
  to.scheduled = true;
  setImmediate(() => {
    to.scheduled = false;
    if (to.paused || to.ended || to.events === undefined) return;
    const item = from.outbox.shift();
    if (item === undefined) return;
    scheduleDelivery(from, to);
    if (item === 'end') return endOf(from, to, to.events);
    if (item === 'text') return to.events.text();
    from.bufferedBytes -= item.length;
    from.drain.wake();
    to.events.message(item);
  });
}

/** The end arrives: whoever has not closed yet answers with its own, after what it has sent before. */
function endOf(from: End, to: End, events: TransportEvents): void {
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
