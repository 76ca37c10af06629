/**
 * Whose jobs this receiver has under each id. Another receiver on the same directories can revoke a dashboard and let in
 * one with another key under the same id; it removes what it knows of, and cannot reach the jobs that stand here. They are
 * gone before anybody is answered by the new table: whoever names a job of an id is handed its result.
 */
import type { DashboardId } from '../paths/index.js';

export interface KnownKeys {
  /** What stands under the id here is this key's, or has just been removed. */
  note(id: DashboardId, pin: string): void;
  /** Forgets the jobs of each id whose key is another one now. Rejects when some stay; the next call tries again. */
  check(): Promise<void>;
}

export interface KnownKeysOptions {
  /** The approved peers, as they are now. */
  readonly peers: () => readonly { readonly dashboardId: DashboardId; readonly pin: string }[];
  /** Ends the jobs that this receiver has of the id, and forgets them with their results. */
  readonly forgetJobs: (id: DashboardId) => Promise<void>;
}

/** Takes what stands here for the keys' of the peers that there are now. */
export function createKnownKeys({ peers, forgetJobs }: KnownKeysOptions): KnownKeys {
  const pins = new Map(peers().map(({ dashboardId, pin }) => [dashboardId, pin]));
  let last: Promise<unknown> = Promise.resolve();

  async function checkNow(): Promise<void> {
    for (const { dashboardId, pin } of peers()) {
      if (pins.get(dashboardId) === pin) continue;
      await forgetJobs(dashboardId);
      pins.set(dashboardId, pin);
    }
  }

  return {
    note: (id, pin) => void pins.set(id, pin),
    check() {
      const result = last.then(checkNow);
      last = result.catch(() => {});
      return result;
    },
  };
}
