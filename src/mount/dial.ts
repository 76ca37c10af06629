/** Opens a connection to a receiver: the client's way to a transport. Kept here because it needs `ws`. */
import { isIP } from 'node:net';

import { ReceiverError } from '../errors.js';
import type { Transport } from '../link/transport.js';
import { peerLinkPath } from './peer-link-path.js';
import { wsTransport } from './ws-transport.js';
import { WebSocket } from './ws.js';

const connectTimeoutMs = 10_000;
const maxMessageBytes = 65_535;

export interface Where {
  readonly host: string;
  readonly port: number;
}

export interface DialOptions {
  /** How long the connection may take, in milliseconds. Default: 10,000. */
  readonly timeoutMs?: number;
  /** The address of this machine that the connection comes from. Default: what the system chooses. */
  readonly localAddress?: string | undefined;
  /** Ends the attempt; a connection that is open already is not touched. */
  readonly signal?: AbortSignal;
}

/**
 * Connects to the peer link of a receiver. Throws `PROTOCOL` when nobody answers, or not as a receiver, and `CANCELLED`
 * on abort.
 */
export function dial({ host, port }: Where, options: DialOptions = {}): Promise<Transport> {
  const { timeoutMs = connectTimeoutMs, localAddress, signal } = options;
  const address = host.includes(':') ? `[${host}]` : host;
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) throw new ReceiverError('CANCELLED', 'the connection was cancelled');
    const socket = new WebSocket(`ws://${address}:${port}${peerLinkPath}`, {
      perMessageDeflate: false,
      maxPayload: maxMessageBytes,
      ...(localAddress !== undefined && { localAddress }),
    });
    const cancel = (): void => socket.terminate();
    signal?.addEventListener('abort', cancel, { once: true });
    // The library's own limit begins anew with each byte that comes.
    const timer = setTimeout(cancel, timeoutMs);
    const stopWaiting = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    };
    socket.once('open', () => {
      stopWaiting();
      resolve(wsTransport(socket, host));
    });
    socket.once('error', (cause) => {
      stopWaiting();
      if (signal?.aborted === true) reject(new ReceiverError('CANCELLED', 'the connection was cancelled'));
      else reject(new ReceiverError('PROTOCOL', 'no receiver answered', { host, port }, { cause }));
    });
  });
}

/**
 * The address from which somebody who is to find a listener at `bound` must be called, because he looks for it where the
 * call comes from. Undefined when the system's choice is as good: all addresses are bound, or `to` is of the other family.
 */
export function callFrom(bound: string, to: string): string | undefined {
  const family = isIP(bound);
  const isAny = /^[0:.]+$/.test(bound);
  return family !== 0 && family === isIP(to) && !isAny ? bound : undefined;
}
