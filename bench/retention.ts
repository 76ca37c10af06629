/**
 * What keeping and removing builds costs a receiver that has other things to do: time, and how long its event loop is
 * held up. What is missed is said and does not fail: where two cores are shared, neighbours decide.
 */
import { tempDir } from '../test/support/temp-dir.js';
import { measureLargeTree } from './retention/large-tree.js';
import { measureManyDevices } from './retention/many-devices.js';
import { printTable } from './transfer/table.js';

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void) => void cleanups.unshift(cleanup) };
try {
  printTable([
    ...(await measureManyDevices(await tempDir(t))),
    ...(await measureLargeTree(t, await tempDir(t))),
  ]);
} finally {
  for (const cleanup of cleanups) await cleanup();
}
