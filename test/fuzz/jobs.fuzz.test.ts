import { test } from 'node:test';

import { anyInterleaving } from '../jobs/interleavings.js';
import { tempDir } from '../support/temp-dir.js';

/** A run is the whole life of a machine; the default is 5,000. */
const runs = Math.ceil(Number(process.env['FUZZ_RUNS'] ?? 250_000) / 50);

test(`jobs: in any interleaving, through any restart, each ends once, ${runs} machines`, async (t) => {
  await anyInterleaving(await tempDir(t), runs);
});
