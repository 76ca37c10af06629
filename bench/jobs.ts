/**
 * Many jobs and much output: what the link adds to a line, what 10,000 jobs cost, and what a second slot is worth. What
 * is missed is said and does not fail: where two cores are shared, neighbours decide.
 */
import { tempDir } from '../test/support/temp-dir.js';
import { measureOutput } from './jobs/output.js';
import { measureStore } from './jobs/store.js';
import { printTable } from './transfer/table.js';

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void) => void cleanups.unshift(cleanup) };
try {
  const base = await tempDir(t);
  printTable([...(process.env.R === '0' ? [] : await measureOutput(t, base)), ...(await measureStore(base))]);
} finally {
  for (const cleanup of cleanups) await cleanup();
}
