/**
 * Calls dashboards back for as long as a port of ours is open: what the link and the desk say goes to the schedule, and
 * a call that is due goes over a connection that the mount opens.
 */
import type { Log } from '../log.js';
import type { Clock } from '../peers/clock.js';
import type { PairingDesk } from '../peers/pairing.js';
import type { PeerTable } from '../peers/peers.js';
import { connectBack } from './connect-back.js';
import { startConnectBackSchedule, type ConnectBackTiming } from './connect-back-schedule.js';
import type { Link } from './link.js';
import type { KeyPair } from './noise.js';
import type { Transport } from './transport.js';

/** Opens a connection to a peer link at a literal address. Rejects when nobody answers, and on abort. */
export type Dial = (
  where: { readonly host: string; readonly port: number },
  signal: AbortSignal,
) => Promise<Transport>;

/** Where this receiver is to be found, and how it reaches others. */
export interface CallingPlace {
  /** The port that is bound. */
  readonly port: number;
  readonly dial: Dial;
  readonly timing: ConnectBackTiming;
}

export interface ConnectBackOptions extends CallingPlace {
  readonly identity: KeyPair;
  readonly table: PeerTable;
  readonly desk: PairingDesk;
  readonly link: Link;
  readonly clock: Clock;
  readonly log: Log;
}

/** The returned function ends it, and resolves when no call runs any more. */
export function startConnectBack(options: ConnectBackOptions): () => Promise<void> {
  const { identity, port, dial, timing, table, desk, link, clock, log } = options;
  const schedule = startConnectBackSchedule({
    peers: () => table.list(),
    isConnected: (id) => link.isConnected(id),
    call({ address: host, connectBackPort, pin: expectedPin }, signal) {
      const connect = (): Promise<Transport> => dial({ host, port: connectBackPort }, signal);
      return connectBack(connect, { identity, expectedPin, port, clock, signal });
    },
    ...{ clock, random: Math.random, timing, log },
  });
  const stops = [
    link.subscribe((event) => {
      if (event.type === 'session') schedule.note(event.dashboardId, event.connected);
    }),
    desk.subscribe((event) => {
      if (event.type === 'revoked') schedule.forget(event.dashboardId);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    return schedule.stop();
  };
}
