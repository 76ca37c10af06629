/**
 * What a mount sees of the pairing desk, the peers and the jobs: ids and configurations are checked here, once, and
 * nothing else of the parts can be reached.
 */
import type { JobsView, Pairing, Peers } from './core.js';
import type { Jobs } from './jobs/jobs.js';
import type { Link } from './link/link.js';
import { dashboardId, type DashboardId, type Paths } from './paths/index.js';
import type { PairingDesk } from './peers/pairing.js';
import type { PeerTable } from './peers/peers.js';
import type { Owners } from './retention/owners.js';

/** The window's share of the operator: one for all pages of the host. */
const operator = 'operator';

export function pairingOf(desk: PairingDesk): Pairing {
  return Object.freeze({
    open: (client = operator) => desk.window.open(client),
    close: (client?: string) => (client === undefined ? desk.window.closeAll() : desk.window.close(client)),
    closesInMs: () => desk.window.closesInMs(),
    requests: () => desk.pending(),
    approve: async (id: string, pin: string) => desk.approve(dashboardId(id), pin),
    reject: (id: string) => desk.reject(dashboardId(id)),
    armOneTimeKey: (show: (key: string) => void) => desk.armOneTimeKey(show),
  });
}

export function jobsOf({ list, get, cancel, local, enqueueLocal }: Jobs, paths: Paths): JobsView {
  return Object.freeze({
    ...{ list, get, cancel, local },
    async enqueueLocal(...[configuration, options]: Parameters<JobsView['enqueueLocal']>) {
      paths.parseConfiguration(configuration);
      return enqueueLocal(configuration, options);
    },
  });
}

export function peersOf(
  table: PeerTable,
  desk: PairingDesk,
  link: Link,
  data: { cancelJobs(id: DashboardId): Promise<void> } & Pick<Owners, 'has' | 'remove'>,
): Peers {
  return Object.freeze({
    list: () => table.list().map((peer) => ({ ...peer, connected: link.isConnected(peer.dashboardId) })),
    async revoke(text: string, { data: wish = 'delete' }: Parameters<Peers['revoke']>[1] = {}) {
      const id = dashboardId(text);
      // What would be removed may lie in the same directory as the other one's.
      if (table.hasTwin(id)) return false;
      const isKept = wish === 'keep';
      const had = isKept ? false : data.has(id);
      // Its work ends and goes whatever becomes of the file that says so.
      const leave = isKept ? data.cancelJobs(id) : data.remove(id);
      const [isRemoved, hadData] = await Promise.all([desk.revoke(id), had, leave]);
      return isRemoved || hadData;
    },
  });
}
