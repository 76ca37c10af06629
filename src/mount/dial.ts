/** Opens a connection to a receiver: the client's way to a transport. Kept here because it needs `ws`. */
import { WebSocket } from 'ws';

import { ReceiverError } from '../errors.js';
import type { Transport } from '../link/transport.js';
import { peerLinkPath } from './peer-link-path.js';
import { wsTransport } from './ws-transport.js';

const connectTimeoutMs = 10_000;
const maxMessageBytes = 65_535;

export interface Where {
  readonly host: string;
  readonly port: number;
}

/** Connects to the peer link of a receiver. Throws `PROTOCOL` when nobody answers, or not as a receiver. */
export function dial({ host, port }: Where): Promise<Transport> {
  const address = host.includes(':') ? `[${host}]` : host;
  const socket = new WebSocket(`ws://${address}:${port}${peerLinkPath}`, {
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    handshakeTimeout: connectTimeoutMs,
  });
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(wsTransport(socket, host)));
    socket.once('error', (cause) => {
      reject(new ReceiverError('PROTOCOL', 'no receiver answered', { host, port }, { cause }));
    });
  });
}
