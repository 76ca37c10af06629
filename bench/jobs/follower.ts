/**
 * A follower that only counts: after the handshake it does not decrypt, so that the printing side is what is measured.
 */
import { initiate } from '../../src/protocol/handshake.js';
import { dial, type Transport } from '../../src/koa/offloader.js';
import { dashboardId, type DashboardId } from '../../src/paths/index.js';
import { identityOf, type Identity } from '../../src/peers/identity.js';
import { messageBytes } from './lines.js';

const host = '127.0.0.1';
const aliveMs = 20_000;

export interface Follower {
  /** Lines that have arrived. */
  count(): number;
  /** When the last one has, as `performance.now()`. */
  lastAt(): number;
  reset(): void;
  close(): void;
}

export function followerIdentity(number: number): Identity {
  return identityOf(Buffer.alloc(32, 100 + number));
}

export function followerId(number: number): DashboardId {
  return dashboardId(`bench-follower-${number}`);
}

/** Connects to the bare loop. */
export async function followBare(port: number): Promise<Follower> {
  const transport = await dial({ host, port });
  const counter = countIn(transport);
  transport.start({ message: counter.message, text() {}, closed() {} });
  return counter.follower;
}

/** Opens the session of the peer with that number. */
export async function followLink(port: number, number: number): Promise<Follower> {
  const transport = await dial({ host, port });
  const counter = countIn(transport);
  let isOpen = false;
  const watched: Transport = {
    ...transport,
    get bufferedBytes() {
      return transport.bufferedBytes;
    },
    start: (events) =>
      transport.start({
        ...events,
        message: (data) => (isOpen ? counter.message(data) : events.message(data)),
      }),
  };
  const hello = { dashboardId: followerId(number) };
  const { answer, channel } = await initiate(watched, followerIdentity(number), {
    intent: 'peer_link',
    hello,
  });
  if (answer.intent_response !== 'ok') throw new Error(`the session is refused: ${answer.intent_response}`);
  isOpen = true;
  transport.resume();
  // A session without a sign of life is ended, and this one never answers.
  const timer = setInterval(() => void channel.send({ type: 'ping', nonce: 0 }), aliveMs);
  return {
    ...counter.follower,
    close() {
      clearInterval(timer);
      transport.destroy();
    },
  };
}

function countIn(transport: Transport): {
  readonly message: (data: Buffer) => void;
  readonly follower: Follower;
} {
  let count = 0;
  let lastAt = NaN;
  return {
    message({ length }) {
      if (length !== messageBytes) return;
      count += 1;
      lastAt = performance.now();
    },
    follower: {
      count: () => count,
      lastAt: () => lastAt,
      reset() {
        count = 0;
      },
      close: () => transport.destroy(),
    },
  };
}
