/**
 * Many jobs and much output: what a line of output costs, what 10,000 jobs cost, and what a second slot is worth. With
 * `BENCH_REAL=1` the real ESPHome builds as well, which takes minutes. What is missed is said and does not fail: where
 * two cores are shared, neighbours decide.
 */
import { tempDir } from '../test/support/temp-dir.js';
import { measureCompileOutput } from './jobs/compile-output.js';
import { measureOutput } from './jobs/output.js';
import { measureRealSlots, measureSlots } from './jobs/slots.js';
import { measureStore } from './jobs/store.js';
import { printTable } from './transfer/table.js';

const cleanups: (() => Promise<void> | void)[] = [];
const t = { after: (cleanup: () => Promise<void> | void) => void cleanups.unshift(cleanup) };
try {
  const base = await tempDir(t);
  const real = process.env['BENCH_REAL'] === '1' ? await measureRealSlots() : [];
  printTable([
    ...(await measureOutput(t, base)),
    ...(await measureCompileOutput(t, base)),
    ...(await measureSlots()),
    ...(real ?? []),
    ...(await measureStore(base)),
  ]);
  if (real === null) console.log('ESPHome is not installed: npm run test:real installs it.');
} finally {
  for (const cleanup of cleanups) await cleanup();
}
