/**
 * Bundles in and artifacts out over real sockets, client and receiver in processes of their own, beside the bare loop
 * of the same tools in the same minutes, and beside the original receiver when it is installed (`npm run test:real`
 * installs it). What is missed is said and does not fail: where two cores are shared, neighbours decide.
 */
import {
  measureDownloads,
  measurePacking,
  measureRepeats,
  measureStarts,
  measureUploads,
} from './transfer/measure.js';
import { prepare } from './transfer/setting.js';
import { printTable } from './transfer/table.js';

const cleanups: (() => Promise<void> | void)[] = [];
try {
  const setting = await prepare({ after: (cleanup) => void cleanups.unshift(cleanup) });
  // The first build loads what later ones have: it is none of the measurements.
  for (const client of [setting.ours, setting.original?.client])
    await client?.build(setting.bundles.small).done;
  printTable([
    ...(await measureUploads(setting)),
    ...(await measureStarts(setting)),
    ...(await measureDownloads(setting)),
    ...(await measurePacking(setting)),
    ...(await measureRepeats(setting)),
  ]);
  if (!setting.original) console.log('The original is not installed: npm run test:real installs it.');
} finally {
  for (const cleanup of cleanups) await cleanup();
}
