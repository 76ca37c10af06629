/**
 * The open sessions, at most one per peer. The newest wins, because the older one is most likely a connection whose close
 * was lost; the newest is never sent `superseded`, because a client that gets it stops for good. Two clients with the same
 * identity, as after a restored backup, would then disconnect each other in a loop, so a session is replaced at most once
 * a minute; in between, the current one is pinged and stays if it answers.
 */
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { Clock } from '../async/clock.js';
import { createEmitter } from '../async/emitter.js';
import type { PeerSession } from './session.js';

/** A peer's session was opened or closed. */
export interface ConnectionEvent {
  readonly type: 'session';
  readonly dashboardId: DashboardId;
  readonly connected: boolean;
}

/** Two clients use one identity: one of them was sent `identity_in_use`. */
export interface ClonesEvent {
  readonly type: 'clones';
  readonly dashboardId: DashboardId;
  /** The addresses of the client that stays and of the one that was refused. */
  readonly addresses: readonly [string, string];
}

export type SessionEvent = ConnectionEvent | ClonesEvent;

const replaceEveryMs = 60_000;
const answerWithinMs = 5_000;

export type Sessions = ReturnType<typeof createSessions>;

export function createSessions(clock: Clock, log: Log) {
  const byPeer = new Map<DashboardId, PeerSession>();
  /** When each peer's session was last replaced. */
  const replacedAt = new Map<DashboardId, number>();
  const events = createEmitter<SessionEvent>('sessions', log);

  return {
    get: (id: DashboardId): PeerSession | undefined => byPeer.get(id),
    list: (): readonly PeerSession[] => [...byPeer.values()],
    /** Whether a client at this address can open the peer's session. Takes up to 5 s. */
    async isFree(dashboardId: DashboardId, newcomer: string): Promise<boolean> {
      const last = replacedAt.get(dashboardId);
      if (last === undefined) return true;
      if (clock.steady() - last >= replaceEveryMs) replacedAt.delete(dashboardId);
      const current = byPeer.get(dashboardId);
      if (current === undefined || !replacedAt.has(dashboardId)) return true;
      if (!(await current.isAnswering(answerWithinMs))) return true;
      const addresses = [current.remoteAddress, newcomer] as const;
      log.warn({ dashboardId, addresses }, 'session refused: another client uses the same identity');
      events.emit({ type: 'clones', dashboardId, addresses });
      return false;
    },
    /** Makes this the peer's session, then ends the previous one. */
    register(session: PeerSession): void {
      const { dashboardId } = session;
      const older = byPeer.get(dashboardId);
      byPeer.set(dashboardId, session);
      if (older) {
        replacedAt.set(dashboardId, clock.steady());
        older.end('superseded');
      } else events.emit({ type: 'session', dashboardId, connected: true });
    },
    /** Removes the session if it is still the peer's. */
    remove(session: PeerSession): void {
      const { dashboardId } = session;
      if (byPeer.get(dashboardId) !== session) return;
      byPeer.delete(dashboardId);
      events.emit({ type: 'session', dashboardId, connected: false });
    },
    /** Ends the session of a revoked peer at once. */
    cutOff: (id: DashboardId) => byPeer.get(id)?.end('cut', 'no longer approved'),
    subscribe: events.subscribe,
  };
}
