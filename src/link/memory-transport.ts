/**
 * Two ends of a connection inside one process, for tests and for hosts that talk to themselves.
 *
 * It behaves as a socket does where that matters: delivery is later and in order, a paused reader makes the
 * writer's `bufferedBytes` grow, what was sent before a close still arrives, and each end learns of the end once.
 */
import type { Transport, TransportEvents } from './transport.js';

export interface MemoryTransport extends Transport {
  /** Sends a text message, which no true peer does. */
  sendText(): void;
}

type Item = Buffer | 'text' | 'end';

interface End {
  events: TransportEvents | undefined;
  /** What is on its way to the other end, in order. */
  readonly outbox: Item[];
  bufferedBytes: number;
  paused: boolean;
  scheduled: boolean;
  /** Nothing more is sent. */
  closing: boolean;
  /** The connection is gone. */
  ended: boolean;
  readonly waiters: Set<{ readonly maxBytes: number; readonly resolve: () => void }>;
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
    waiters: new Set(),
  };
}

function transportOf(own: End, other: End, remoteAddress: string): MemoryTransport {
  function push(item: Item): void {
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
    drained: (maxBytes) =>
      new Promise((resolve) => {
        own.waiters.add({ maxBytes, resolve });
        releaseWaiters(own);
      }),
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
    releaseWaiters(from);
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
  releaseWaiters(end);
}

function releaseWaiters(end: End): void {
  for (const waiter of end.waiters) {
    if (!end.ended && end.bufferedBytes > waiter.maxBytes) continue;
    end.waiters.delete(waiter);
    waiter.resolve();
  }
}
