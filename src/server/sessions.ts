/**
 * The open sessions, at most one for each peer. The newest wins, since the older one is most likely a connection
 * whose end never arrived; the newest is never told `superseded`, because a client that hears it stops for good.
 *
 * Two programs with one identity, as after a backup was restored beside its original, would throw each other out for
 * ever. So a place changes hands once a minute; in between, the one who has it is asked for a sign of life, and keeps
 * it when it answers.
 */
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { Clock } from '../async/clock.js';
import { createEmitter } from '../async/emitter.js';
import type { PeerSession } from './session.js';

/** A peer has come, or has gone. */
export interface ConnectionEvent {
  readonly type: 'session';
  readonly dashboardId: DashboardId;
  readonly connected: boolean;
}

/** Two programs use one identity: one was told `identity_in_use`. */
export interface ClonesEvent {
  readonly type: 'clones';
  readonly dashboardId: DashboardId;
  /** Of the one who stays, and of the one who was sent away. */
  readonly addresses: readonly [string, string];
}

export type SessionEvent = ConnectionEvent | ClonesEvent;

const handOverEveryMs = 60_000;
const answerWithinMs = 5_000;

export interface Sessions {
  get(id: DashboardId): PeerSession | undefined;
  list(): readonly PeerSession[];
  /** Whether a newcomer from that address may have the peer's place. Takes at most 5 s. */
  isFree(id: DashboardId, newcomer: string): Promise<boolean>;
  /** Puts the session into its peer's place, and only then ends the one that was there. */
  register(session: PeerSession): void;
  /** Clears the place, if it is still this session's. */
  remove(session: PeerSession): void;
  /** Ends the session of a peer that is none any more, at once. */
  cutOff(id: DashboardId): void;
  subscribe(listener: (event: SessionEvent) => void): () => void;
}

export function createSessions(clock: Clock, log: Log): Sessions {
  const byPeer = new Map<DashboardId, PeerSession>();
  /** When a place was last taken from somebody who had it. */
  const handedOver = new Map<DashboardId, number>();
  const events = createEmitter<SessionEvent>('sessions', log);

  return {
    get: (id) => byPeer.get(id),
    list: () => [...byPeer.values()],
    async isFree(dashboardId, newcomer) {
      const last = handedOver.get(dashboardId);
      if (last === undefined) return true;
      if (clock.steady() - last >= handOverEveryMs) handedOver.delete(dashboardId);
      const holder = byPeer.get(dashboardId);
      if (holder === undefined || !handedOver.has(dashboardId)) return true;
      if (!(await holder.isAnswering(answerWithinMs))) return true;
      const addresses = [holder.remoteAddress, newcomer] as const;
      log.warn({ dashboardId, addresses }, 'session refused: another client uses the same identity');
      events.emit({ type: 'clones', dashboardId, addresses });
      return false;
    },
    register(session) {
      const { dashboardId } = session;
      const older = byPeer.get(dashboardId);
      byPeer.set(dashboardId, session);
      if (older) {
        handedOver.set(dashboardId, clock.steady());
        older.end('superseded');
      } else events.emit({ type: 'session', dashboardId, connected: true });
    },
    remove(session) {
      const { dashboardId } = session;
      if (byPeer.get(dashboardId) !== session) return;
      byPeer.delete(dashboardId);
      events.emit({ type: 'session', dashboardId, connected: false });
    },
    cutOff: (id) => byPeer.get(id)?.end('cut', 'no longer approved'),
    subscribe: (listener) => events.subscribe(listener),
  };
}
