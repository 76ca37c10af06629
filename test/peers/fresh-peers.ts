/** A real peer table in a fresh directory, which is removed with the test. */
import type { Clock } from '../../src/async/clock.js';
import { silentLog } from '../../src/log.js';
import { openPeerTable, type PeerTable } from '../../src/peers/peers.js';
import { tempDir, type Cleanups } from '../support/temp-dir.js';

/** Registers its own close, so that no write outlives the directory. */
export async function freshPeers(t: Cleanups, clock: Clock): Promise<PeerTable> {
  let peers: PeerTable | undefined;
  const directory = await tempDir({
    after: (remove) =>
      t.after(async () => {
        await peers?.close();
        await remove();
      }),
  });
  peers = await openPeerTable(directory, { clock, log: silentLog });
  return peers;
}
