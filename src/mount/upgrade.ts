/**
 * Upgrades of the peer link's path to a transport, on any HTTP server.
 *
 * Messages are never larger than 65,535 bytes (Noise), and the limit holds from the first byte: `ws` would take
 * 100 MiB from a stranger before the handshake. A path that is not ours is left to whoever else listens.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

import type { Transport } from '../link/transport.js';
import { peerLinkPath } from './peer-link-path.js';
import { wsTransport } from './ws-transport.js';
import { WebSocketServer } from './ws.js';

const maxMessageBytes = 65_535;

/** Handles an upgrade when it is for the peer link. False, and nothing touched, when it is not. */
export type HandleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => boolean;

export function createUpgrade(accept: (transport: Transport) => void): HandleUpgrade {
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    clientTracking: false,
    // Left to itself, `ws` agrees to the first subprotocol that a client offers; the link has none.
    handleProtocols: () => false,
  });
  return function handleUpgrade(request, socket, head) {
    if (pathOf(request) !== peerLinkPath) return false;
    const address = request.socket.remoteAddress ?? '';
    server.handleUpgrade(request, socket, head, (webSocket) =>
      accept(wsTransport(webSocket, address, socket)),
    );
    return true;
  };
}

function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '';
  const query = url.indexOf('?');
  return query < 0 ? url : url.slice(0, query);
}
