/**
 * The open sessions, at most one for each peer. The newest wins, since the older one is most likely a connection
 * whose end never arrived; the newest is never told `superseded`, because a client that hears it stops for good.
 */
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import { createListeners } from '../peers/listeners.js';
import type { Session } from './session.js';

/** A peer has come, or has gone. */
export interface SessionEvent {
  readonly type: 'session';
  readonly dashboardId: DashboardId;
  readonly connected: boolean;
}

export interface Sessions {
  get(id: DashboardId): Session | undefined;
  list(): readonly Session[];
  /** Puts the session into its peer's place, and only then ends the one that was there. */
  register(session: Session): void;
  /** Clears the place, if it is still this session's. */
  remove(session: Session): void;
  subscribe(listener: (event: SessionEvent) => void): () => void;
}

export function createSessions(log: Log): Sessions {
  const byPeer = new Map<DashboardId, Session>();
  const events = createListeners<SessionEvent>(log);

  return {
    get: (id) => byPeer.get(id),
    list: () => [...byPeer.values()],
    register(session) {
      const { dashboardId } = session;
      const older = byPeer.get(dashboardId);
      byPeer.set(dashboardId, session);
      if (older) older.end('superseded');
      else events.emit({ type: 'session', dashboardId, connected: true });
    },
    remove(session) {
      const { dashboardId } = session;
      if (byPeer.get(dashboardId) !== session) return;
      byPeer.delete(dashboardId);
      events.emit({ type: 'session', dashboardId, connected: false });
    },
    subscribe: (listener) => events.subscribe(listener),
  };
}
