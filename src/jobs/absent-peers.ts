/**
 * Peers that are away while jobs of theirs wait or run. A dashboard that comes back within the grace time finds its
 * jobs; the jobs of one that does not would take the slots of those who are there, for results that nobody fetches.
 */
import type { DashboardId } from '../paths/index.js';
import type { Clock } from '../peers/clock.js';

export interface AbsentPeers {
  /** A peer has come, or has gone. */
  note(id: DashboardId, connected: boolean): void;
  /** A peer has jobs here. Its time runs if it is away. */
  expect(id: DashboardId): void;
  stop(): void;
}

export interface AbsentPeersOptions {
  readonly graceMs: number;
  readonly clock: Clock;
  /** Called when a peer has been away for the whole grace time. */
  readonly drop: (id: DashboardId) => void;
}

export function watchAbsentPeers({ graceMs, clock, drop }: AbsentPeersOptions): AbsentPeers {
  const present = new Set<DashboardId>();
  const timers = new Map<DashboardId, () => void>();

  function wait(id: DashboardId): void {
    if (timers.has(id)) return;
    const cancel = clock.after(graceMs, () => {
      timers.delete(id);
      drop(id);
    });
    timers.set(id, cancel);
  }

  return {
    note(id, connected) {
      if (!connected) {
        present.delete(id);
        return wait(id);
      }
      present.add(id);
      timers.get(id)?.();
      timers.delete(id);
    },
    expect(id) {
      if (!present.has(id)) wait(id);
    },
    stop() {
      for (const cancel of timers.values()) cancel();
      timers.clear();
    },
  };
}
