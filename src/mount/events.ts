/**
 * Live events for an operator's page, one JSON object a message: a snapshot first, then what changes.
 *
 * A page that does not keep up is closed and reconnects to a new snapshot; the receiver never buffers for it
 * without bound.
 */
import type { WebSocket } from 'ws';

import type { ReceiverCore } from '../receiver.js';
import { stateOf } from './state.js';

const maxBufferedBytes = 1024 * 1024;
/** WebSocket close code 1013: try again later. */
const tooSlow = 1013;

/** Follows the receiver until the socket closes. Job output is sent for one job only, when `job` names it. */
export function sendEvents(core: ReceiverCore, socket: WebSocket, job: string | null): void {
  function send(event: object): void {
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount > maxBufferedBytes) return socket.close(tooSlow, 'reading too slowly');
    socket.send(JSON.stringify(event));
  }
  const unsubscribe = core.subscribe((event) => {
    if (event.type !== 'output' || event.job.id === job) send(event);
  });
  socket.on('error', () => socket.terminate());
  socket.on('close', unsubscribe);
  send({ type: 'snapshot', ...stateOf(core) });
}
