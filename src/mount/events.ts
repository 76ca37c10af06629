/**
 * Live events for operators' pages, one JSON object a message: a snapshot first, then what changes.
 *
 * A page that does not keep up is closed and reconnects to a new snapshot; the receiver never buffers for it
 * without bound. Open pages are closed with the receiver: a host whose server waits for them would never end.
 */
import type { WebSocket } from 'ws';

import type { ReceiverCore, ReceiverEvent } from '../core.js';
import { jobView, peerView, requestView, stateOf } from './state.js';

const maxBufferedBytes = 1024 * 1024;
/** WebSocket close codes: going away, and try again later. */
const goingAway = 1001;
const tooSlow = 1013;

export interface Events {
  /** Follows the receiver until the socket closes. Job output is sent for one job only, when `job` names it. */
  follow(socket: WebSocket, job: string | null): void;
  close(): void;
}

export function createEvents(core: Pick<ReceiverCore, 'subscribe' | StateParts>): Events {
  const sockets = new Set<WebSocket>();

  return {
    follow(socket, job) {
      if (socket.readyState !== socket.OPEN) return;
      function send(event: object): void {
        if (socket.readyState !== socket.OPEN) return;
        if (socket.bufferedAmount > maxBufferedBytes) return socket.close(tooSlow, 'reading too slowly');
        socket.send(JSON.stringify(event));
      }
      const unsubscribe = core.subscribe((event) => {
        if (event.type !== 'output' || event.job.id === job) send(viewOf(event));
      });
      sockets.add(socket);
      socket.on('close', () => {
        sockets.delete(socket);
        unsubscribe();
      });
      send({ type: 'snapshot', ...stateOf(core) });
    },
    close() {
      for (const socket of sockets) socket.close(goingAway);
    },
  };
}

type StateParts = 'pin' | 'options' | 'pairing' | 'peers' | 'jobs';

/** Keys of peers, which are of no use to a page, stay here. */
function viewOf(event: ReceiverEvent): object {
  if (event.type === 'requested') return { type: event.type, request: requestView(event.request) };
  if (event.type === 'approved')
    return { type: event.type, peer: peerView({ ...event.peer, connected: false }) };
  // There may be thousands a second, and the page has the job already.
  if (event.type === 'output') return { type: event.type, job_id: event.job.id, line: event.line };
  return 'job' in event ? { ...event, job: jobView(event.job) } : event;
}
