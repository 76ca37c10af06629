/**
 * The open sessions, at most one per peer and lane. The newest wins, because the older one is most likely a connection
 * whose close was lost; the newest is never sent `superseded`, because a client that gets it stops for good. Two clients
 * with the same identity, as after a restored backup, would then disconnect each other in a loop, so a session is
 * replaced at most once a minute; in between, the current one is pinged and stays if it answers.
 */
import type { Log } from '../log.js';
import type { DashboardId } from '../paths/index.js';
import type { Clock } from '../async/clock.js';
import { createEmitter } from '../async/signals.js';
import type { PeerSession } from './session.js';

/** A peer's first session was opened or its last one closed. */
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
  const open = new Map<string, PeerSession>();
  /** When each session was last replaced. */
  const replacedAt = new Map<string, number>();
  const events = createEmitter<SessionEvent>('sessions', log);

  function sessionsOf(id: DashboardId): PeerSession[] {
    return [...open.values()].filter(({ dashboardId }) => dashboardId === id);
  }

  return {
    /** The peer's session on this lane. */
    get: (id: DashboardId, lane: number): PeerSession | undefined => open.get(keyOf(id, lane)),
    isConnected: (id: DashboardId): boolean => sessionsOf(id).length > 0,
    list: (): readonly PeerSession[] => [...open.values()],
    /** Whether a client at this address can open the peer's session on this lane. Takes up to 5 s. */
    async isFree(dashboardId: DashboardId, lane: number, newcomer: string): Promise<boolean> {
      const key = keyOf(dashboardId, lane);
      const last = replacedAt.get(key);
      if (last === undefined) return true;
      if (clock.steady() - last >= replaceEveryMs) replacedAt.delete(key);
      const current = open.get(key);
      if (current === undefined || !replacedAt.has(key)) return true;
      if (!(await current.isAnswering(answerWithinMs))) return true;
      const addresses = [current.remoteAddress, newcomer] as const;
      log.warn({ dashboardId, addresses }, 'session refused: another client uses the same identity');
      events.emit({ type: 'clones', dashboardId, addresses });
      return false;
    },
    /** Makes this the peer's session, then ends the previous one. */
    register(session: PeerSession): void {
      const { dashboardId } = session;
      const key = keyOf(dashboardId, session.lane);
      const older = open.get(key);
      const isFirst = sessionsOf(dashboardId).length === 0;
      open.set(key, session);
      if (older) {
        replacedAt.set(key, clock.steady());
        older.end('superseded');
      } else if (isFirst) events.emit({ type: 'session', dashboardId, connected: true });
    },
    /** Removes the session if it is still the peer's. */
    remove(session: PeerSession): void {
      const { dashboardId } = session;
      const key = keyOf(dashboardId, session.lane);
      if (open.get(key) !== session) return;
      open.delete(key);
      if (sessionsOf(dashboardId).length > 0) return;
      events.emit({ type: 'session', dashboardId, connected: false });
    },
    /** Ends the sessions of a revoked peer at once. */
    cutOff(id: DashboardId): void {
      for (const session of sessionsOf(id)) session.end('cut', 'no longer approved');
    },
    subscribe: events.subscribe,
  };
}

function keyOf(id: DashboardId, lane: number): string {
  return `${lane} ${id}`;
}
