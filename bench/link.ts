/**
 * What a handshake and a session of the peer link cost, what a flood of strangers takes from a peer, and how soon the built
 * program listens, beside bare `ws`, the bare work and a bare Koa in the same minutes. What is missed is said and does not fail: where
 * two cores are shared, neighbours decide.
 */
import { tempDir } from '../test/support/temp-dir.js';
import { measureFlood } from './link/flood.js';
import { measureHandshakes } from './link/handshakes.js';
import { measureSessions } from './link/sessions.js';
import { build, measureStart } from './link/start.js';
import { printTable } from './transfer/table.js';

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void) => void cleanups.unshift(cleanup) };
try {
  build();
  printTable([
    ...(await measureHandshakes(t, await tempDir(t))),
    ...(await measureSessions(t, await tempDir(t))),
    ...(await measureFlood(t, await tempDir(t))),
    ...(await measureStart(await tempDir(t))),
  ]);
} finally {
  for (const cleanup of cleanups) await cleanup();
}
